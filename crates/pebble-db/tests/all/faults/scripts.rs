//! The scripts whose calls are made to fail. A script goes on whatever fails, without a database if it must.

use super::run::Run;
use crate::support::Rng;

pub type Script = fn(&mut Run);

pub const SCRIPTS: [(&str, Script); 14] = [
    ("all kinds of work, twice", |run| {
        for round in 0..2 {
            run.open();
            run.commit(&["default"], 30, false);
            run.keyspace("a");
            run.commit(&["default", "a"], 100, true);
            run.commit(&["a"], 1500, false);
            run.commit(&["default"], 3000, round == 1);
            run.flush();
            run.commit(&["default", "a"], 10, true);
            run.persist();
            run.flush();
            run.compact();
            run.verify();
            run.clear("a");
            run.flush();
            run.drop_keyspace("a");
            run.keyspace("a");
            run.commit(&["a"], 40, false);
            run.close();
        }
        run.open();
    }),
    ("writes alone", |run| {
        run.open();
        for round in 0..14 {
            run.commit(&["default"], 700, round % 5 == 3);
            if round % 6 == 2 {
                run.delete("default");
            }
        }
        run.persist();
        run.commit(&["default"], 100, false);
    }),
    ("batches over keyspaces", |run| {
        run.open();
        run.keyspace("a");
        run.keyspace("b");
        for round in 0..5 {
            run.commit(&["default", "a", "b"], 300, round % 3 == 1);
            run.delete("a");
        }
        run.flush();
        run.clear("b");
        run.drop_keyspace("b");
        run.commit(&["default", "a"], 50, false);
        run.close();
        run.open();
        run.keyspace("b");
        run.commit(&["a", "b"], 50, true);
    }),
    ("flushes and merges", |run| {
        run.open();
        for round in 0..6 {
            run.commit(&["default"], 600, false);
            run.commit(&["default"], 60, round == 3);
            run.flush();
        }
        run.compact();
        run.commit(&["default"], 600, false);
        run.flush();
        run.compact();
        run.verify();
    }),
    ("ranges", |run| {
        run.open();
        run.keyspace("a");
        for round in 0..3 {
            for _ in 0..3 {
                run.commit(&["default", "a"], 400, false);
            }
            run.delete_range("default", b"key-02", b"key-06");
            run.flush();
            run.delete_range("a", b"key-00", b"key-05");
            run.commit(&["a"], 20, round == 1);
        }
        run.compact();
        run.clear("a");
        run.flush();
        run.commit(&["a"], 20, true);
    }),
    ("large values", |run| {
        run.open();
        for (round, len) in [20_000, 10, 16_384, 60_000, 3000].into_iter().enumerate() {
            run.commit(&["default"], len, round % 2 == 1);
        }
        run.flush();
        run.commit(&["default"], 20_000, false);
        run.close();
        run.open();
        run.commit(&["default"], 5000, true);
    }),
    ("many opens", |run| {
        for round in 0..5 {
            run.open();
            run.commit(&["default"], 900, round % 2 == 0);
            run.commit(&["default"], 90, false);
            match round {
                0 | 3 => run.drop_db(),
                1 => {
                    run.flush();
                    run.close();
                }
                _ => run.close(),
            }
        }
        run.open();
    }),
    ("many edits of the manifest", |run| {
        run.open();
        for name in ["a", "b", "c", "d"] {
            run.keyspace(name);
            run.commit(&["default"], 40, false);
        }
        run.flush();
        for name in ["d", "b", "a"] {
            run.drop_keyspace(name);
        }
        run.close();
        run.open();
        run.keyspace("a");
        run.commit(&["a"], 40, true);
        run.flush();
    }),
    ("a full disk, and space again", |run| {
        run.open();
        run.commit(&["default"], 100, true);
        run.commit(&["default"], 2000, false);
        let used: usize = crate::support::dump(&run.sim).values().map(Vec::len).sum();
        run.full(Some(used as u64 + 5000));
        for _ in 0..5 {
            run.commit(&["default"], 1800, false);
        }
        run.flush();
        run.full(None);
        run.commit(&["default"], 1800, true);
        run.flush();
        run.commit(&["default"], 10, false);
    }),
    ("reads, with snapshots and iterators", |run| {
        run.open();
        run.keyspace("a");
        for _ in 0..4 {
            run.commit(&["default", "a"], 250, false);
            run.flush();
        }
        run.close();
        run.open();
        run.hold(|run| {
            run.commit(&["default"], 250, false);
            run.delete("a");
            run.flush();
            run.look();
            run.hold(|run| {
                run.commit(&["default", "a"], 25, true);
                run.compact();
            });
        });
        run.verify();
    }),
    ("a long life", |run| {
        run.open();
        run.keyspace("a");
        for round in 0..4 {
            for _ in 0..4 {
                run.commit(&["default", "a"], 450, false);
            }
            run.delete("a");
            run.persist();
            run.flush();
            run.delete_range("default", b"key-03", b"key-05");
            if round % 2 == 1 {
                run.compact();
                run.close();
                run.open();
            }
        }
        run.verify();
        run.commit(&["a"], 450, true);
    }),
    ("sync commits alone", |run| {
        run.open();
        for round in 0..10 {
            run.commit(&["default"], 150 * round, true);
        }
        run.delete("default");
        run.persist();
        run.drop_db();
        run.open();
        run.commit(&["default"], 10, true);
    }),
    ("memtables that fill up", |run| {
        run.open();
        for round in 0..7 {
            run.commit(&["default"], 45_000, round == 3);
        }
        run.commit(&["default"], 10, true);
    }),
    ("a tree of many levels", |run| {
        run.open();
        for round in 0..4 {
            for _ in 0..3 {
                run.commit(&["default"], 1200, false);
                run.flush();
            }
            if round == 1 {
                run.drop_db();
                run.open();
            }
        }
        run.clear("default");
        run.flush();
        run.commit(&["default"], 20, true);
        run.compact();
    }),
];

/// Calls drawn from a seed.
pub fn random(run: &mut Run, seed: u64) {
    let mut rng = Rng(seed);
    run.open();
    run.keyspace("a");
    for _ in 0..24 {
        match rng.below(24) {
            0 => run.flush(),
            1 => run.compact(),
            2 => run.persist(),
            3 => run.verify(),
            4 => run.clear("a"),
            5 => run.delete_range("default", b"key-02", b"key-07"),
            6 => {
                run.close();
                run.open();
            }
            7 => {
                run.drop_db();
                run.open();
            }
            8 => run.drop_keyspace("a"),
            9 => run.keyspace("a"),
            10 => run.hold(Run::flush),
            11 | 12 => run.delete("default"),
            _ => {
                let names: &[_] = rng.pick(&[&["default"], &["default", "a"]]);
                run.commit(names, rng.pick(&[0, 10, 100, 900, 3000, 20_000]), rng.one_in(4));
            }
        }
    }
}
