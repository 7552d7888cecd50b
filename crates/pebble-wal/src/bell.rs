//! A bell: threads sleep until it rings, and need no lock when they wake.
//!
//! A condition variable hands its mutex to one sleeper after the other, so that of sixteen threads woken at once the
//! last is through after fifteen more switches. Here each wakes by itself.
//!
//! Threading: any number of threads listen and ring. Who calls [`Bell::heard`], then looks whether he has to sleep,
//! then [`Bell::wait`]s, misses no ringing that follows a change he did not see.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use futex::Bell;
#[cfg(any(loom, shuttle))]
pub(crate) use model::Bell;

#[cfg(not(any(loom, shuttle)))]
mod futex {
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Counts its ringings; a sleeper names the last one it heard.
    pub(crate) struct Bell(AtomicU32);

    impl Bell {
        pub(crate) fn new() -> Self {
            Self(AtomicU32::new(0))
        }

        /// The last ringing so far, for [`Bell::wait`].
        pub(crate) fn heard(&self) -> u32 {
            self.0.load(Ordering::Acquire)
        }

        /// Sleeps until it rang after `heard`; may return before that.
        pub(crate) fn wait(&self, heard: u32) {
            atomic_wait::wait(&self.0, heard);
        }

        /// Wakes everybody, after what the caller changed before.
        pub(crate) fn ring(&self) {
            self.0.fetch_add(1, Ordering::Release);
            atomic_wait::wake_all(&self.0);
        }
    }
}

/// The same over the primitives of the models, which know no futex.
#[cfg(any(loom, shuttle))]
mod model {
    use crate::sync::{Condvar, Mutex, PoisonError};

    pub(crate) struct Bell {
        rung: Mutex<u32>,
        turn: Condvar,
    }

    impl Bell {
        pub(crate) fn new() -> Self {
            Self { rung: Mutex::new(0), turn: Condvar::new() }
        }

        pub(crate) fn heard(&self) -> u32 {
            *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn wait(&self, heard: u32) {
            let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
            if *rung == heard {
                drop(self.turn.wait(rung).unwrap_or_else(PoisonError::into_inner));
            }
        }

        pub(crate) fn ring(&self) {
            *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.turn.notify_all();
        }
    }
}
