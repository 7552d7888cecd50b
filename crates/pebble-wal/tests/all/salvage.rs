//! One wrong byte, anywhere in a log: every other frame is there, and what was lost is named.

use pebble_wal::{LogPosition, salvage};

use crate::support::{BOTH, UUID, append, contents, create, dir, disk_of, payload, sim};

#[test]
fn a_wrong_byte_costs_one_frame_whose_content_is_known() {
    let mut cases = 0;
    for io in BOTH {
        let (_, fs) = sim(1);
        let mut log = create(&fs, io);
        let count = 24;
        let places: Vec<_> = (0..count).map(|index| append(&mut log, index)).collect();
        let floor = log.seal().unwrap();
        drop(log);
        let files = contents(&*fs);
        for (number, (name, bytes)) in files.iter().enumerate() {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for at in (0..used).step_by(3) {
                cases += 1;
                let mut files = files.clone();
                files[number].1[at] ^= [1, 0x10, 0xff, 0x5a][at % 4];
                let segments = salvage(&*disk_of(&files), dir(), &UUID, 1, floor).unwrap();
                let context = format!("{io:?}: {name}, byte {at} of {used}");
                let mut found = Vec::new();
                for segment in &segments {
                    for frame in &segment.frames {
                        let payload = &segment.region.bytes()[frame.payload()..frame.end];
                        found.push(u32::from_le_bytes(payload[..4].try_into().unwrap()));
                        assert_eq!(payload, self::payload(*found.last().unwrap()), "{context}");
                    }
                }
                let lost: Vec<_> = segments.iter().flat_map(|segment| &segment.lost).collect();
                let missing: Vec<u32> = (0..count).filter(|index| !found.contains(index)).collect();
                match (&missing[..], &lost[..]) {
                    // A header, or the space behind the frames of a segment.
                    ([], []) => {}
                    ([], [seal]) => assert_eq!(seal.payloads, [Box::from(&b""[..])], "{context}"),
                    ([index], [lost]) => {
                        assert!(lost.is_one_byte && (lost.start..lost.end).contains(&at), "{context}");
                        let known = lost.payloads.iter().any(|payload| **payload == *self::payload(*index));
                        assert!(known, "{context}: {lost:?}");
                    }
                    other => panic!("{context}: {other:?}"),
                }
            }
        }
        assert!(places.last().unwrap().end > LogPosition::new(1, 64));
    }
    println!("salvage of a log: {cases} bytes damaged");
}
