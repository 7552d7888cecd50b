//! Whether writing goes on: healthy, held up by a full disk, or stopped until the next open.
//!
//! Threading: any thread may look or latch. The first cause that stops writing stays; a full disk comes and goes.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// The state of the write side.
#[derive(Default)]
pub(crate) struct Status {
    /// Set with `stopped` or `closed`, so that the commit path pays one relaxed load.
    refuses: AtomicBool,
    /// Set while the log's last append found no space.
    log_blocked: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stopped: Option<Arc<Error>>,
    /// Why flushes do not get on; writers that would wait for one get it instead.
    flush_blocked: Option<Error>,
    /// Why the log's last append found no space; kept when that has passed.
    log_blocked: Option<Error>,
    closed: bool,
}

impl Status {
    /// `Ok` while writes are taken.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.refuses.load(Ordering::Acquire) {
            return Ok(());
        }
        let inner = lock(&self.inner);
        match &inner.stopped {
            _ if inner.closed => Err(Error::Closed),
            Some(cause) => Err(Error::ReadOnly { cause: Arc::clone(cause) }),
            None => Ok(()),
        }
    }

    /// `Ok` until the database is closed.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.refuses.load(Ordering::Acquire) && lock(&self.inner).closed {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Stops all writing until the next open. The first cause stays.
    pub(crate) fn stop(&self, cause: &Error) {
        let mut inner = lock(&self.inner);
        if inner.stopped.is_none() {
            tracing::error!(%cause, "writing stopped until the database is opened again");
            inner.stopped = Some(Arc::new(cause.clone()));
        }
        self.refuses.store(true, Ordering::Release);
    }

    /// Takes no writes from the start.
    pub(crate) fn open_to_read(&self) {
        let cause = Error::invalid("the database was opened for reading only");
        lock(&self.inner).stopped = Some(Arc::new(cause));
        self.refuses.store(true, Ordering::Release);
    }

    /// Makes a call that may leave things half done if it panics: then writing stops. The panic goes on to the caller.
    pub(crate) fn stopped_by_panic<T>(&self, what: &'static str, call: impl FnOnce() -> T) -> T {
        let mut unless_done = StopUnlessDone { status: self, what, done: false };
        let outcome = call();
        unless_done.done = true;
        outcome
    }

    /// Refuses every further call.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
        self.refuses.store(true, Ordering::Release);
    }

    /// Says why flushes do not get on, or that they do again.
    pub(crate) fn set_flush_blocked(&self, cause: Option<Error>) {
        lock(&self.inner).flush_blocked = cause;
    }

    /// Why flushes do not get on.
    pub(crate) fn flush_blocked(&self) -> Option<Error> {
        lock(&self.inner).flush_blocked.clone()
    }

    /// The log's last append found no space.
    pub(crate) fn set_log_blocked(&self, cause: Error) {
        lock(&self.inner).log_blocked = Some(cause);
        self.log_blocked.store(true, Ordering::Release);
    }

    /// An append went well.
    #[inline]
    pub(crate) fn log_goes_on(&self) {
        if self.log_blocked.load(Ordering::Relaxed) {
            self.log_blocked.store(false, Ordering::Release);
        }
    }

    /// The full disk that holds writes up, if one does.
    pub(crate) fn no_space(&self) -> Option<Error> {
        let inner = lock(&self.inner);
        let log = inner.log_blocked.clone().filter(|_| self.log_blocked.load(Ordering::Acquire));
        log.or_else(|| inner.flush_blocked.clone().filter(|error| matches!(error, Error::NoSpace(_))))
    }

    /// What stopped writing for good, if anything did.
    pub(crate) fn stopped(&self) -> Option<Arc<Error>> {
        lock(&self.inner).stopped.clone()
    }
}

/// See [`Status::stopped_by_panic`].
struct StopUnlessDone<'s> {
    status: &'s Status,
    what: &'static str,
    done: bool,
}

impl Drop for StopUnlessDone<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.status.stop(&Error::Background { what: self.what.into() });
        }
    }
}
