//! Stand-ins, in models only, for what the model checkers lack: a channel of capacity one, and time.
//!
//! In a model no time passes. A wait that may time out does so at once or never, as the schedule has it: either is what
//! a slow or a fast clock would make of it. So nothing in a model may rely on a timeout to go on.
//!
//! Threading: as of the originals.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, lock};

#[cfg(loom)]
pub(crate) mod thread {
    //! Loom's threads. It has no scopes: what would be spawned in one runs where it stands.

    pub(crate) use loom::thread::{Builder, JoinHandle, ThreadId, current};

    pub(crate) struct Scope;
    pub(crate) struct Done<T>(T);

    pub(crate) fn scope<T>(f: impl FnOnce(&Scope) -> T) -> T {
        f(&Scope)
    }

    pub(crate) fn spawn_scoped<T>(_: &Scope, body: impl FnOnce() -> T) -> std::io::Result<Done<T>> {
        Ok(Done(body()))
    }

    impl<T> Done<T> {
        pub(crate) fn join(self) -> std::thread::Result<T> {
            Ok(self.0)
        }
    }
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

/// For `crossbeam_channel::Sender`.
#[derive(Clone)]
pub(crate) struct Sender<T>(Arc<Bell>, std::marker::PhantomData<T>);

/// For `crossbeam_channel::Receiver`. Its sender is assumed to live as long.
pub(crate) struct Receiver<T>(Arc<Bell>, std::marker::PhantomData<T>);

/// For `crossbeam_channel::RecvTimeoutError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvTimeoutError {
    Timeout,
}

/// For `crossbeam_channel::bounded(1)`.
pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert_eq!(capacity, 1, "the stand-in holds one message");
    let bell = Arc::new(Bell::default());
    (Sender(Arc::clone(&bell), std::marker::PhantomData), Receiver(bell, std::marker::PhantomData))
}

impl Sender<()> {
    pub(crate) fn try_send(&self, (): ()) -> Result<(), ()> {
        let mut rung = lock(&self.0.rung);
        if *rung {
            return Err(());
        }
        *rung = true;
        self.0.heard.notify_one();
        Ok(())
    }
}

impl Receiver<()> {
    pub(crate) fn recv(&self) -> Result<(), RecvTimeoutError> {
        let mut rung = lock(&self.0.rung);
        while !*rung {
            rung = self.0.heard.wait(rung).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *rung = false;
        Ok(())
    }

    pub(crate) fn recv_timeout(&self, _: Duration) -> Result<(), RecvTimeoutError> {
        if times_out() {
            let rung = std::mem::take(&mut *lock(&self.0.rung));
            return if rung { Ok(()) } else { Err(RecvTimeoutError::Timeout) };
        }
        self.recv()
    }
}

#[cfg(shuttle)]
fn times_out() -> bool {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().r#gen()
}

/// Loom has no choice to offer.
#[cfg(loom)]
fn times_out() -> bool {
    false
}
