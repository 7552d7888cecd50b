//! A file system whose next creation of a table waits at a gate, and then panics: so a test holds the background in
//! its hand while writers come to wait for it.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pebble_vfs::{Entry, File, Fs, Lock, LockKind, Open};

/// Passes everything on but one creation of a table.
#[derive(Debug)]
pub struct GateFs {
    inner: Arc<dyn Fs>,
    gate: Mutex<Option<Gate>>,
}

#[derive(Debug)]
struct Gate {
    arrived: Sender<()>,
    opens: Receiver<()>,
    panicked_at: Arc<Mutex<Option<Instant>>>,
}

/// The other side of the gate.
#[derive(Debug)]
pub struct Keeper {
    /// Hears of the arrival.
    pub arrived: Receiver<()>,
    /// Opens, by a message.
    pub opens: Sender<()>,
    /// When the panic began.
    pub panicked_at: Arc<Mutex<Option<Instant>>>,
}

impl GateFs {
    pub fn new(inner: impl Fs) -> (Self, Keeper) {
        let ((arrived, hears), (opens, opened)) = (channel(), channel());
        let panicked_at = Arc::<Mutex<Option<Instant>>>::default();
        let gate = Gate { arrived, opens: opened, panicked_at: Arc::clone(&panicked_at) };
        let fs = Self { inner: Arc::new(inner), gate: Mutex::new(Some(gate)) };
        (fs, Keeper { arrived: hears, opens, panicked_at })
    }
}

impl Fs for GateFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        if mode == Open::CreateNew && path.extension().is_some_and(|end| end == "sst") {
            let gate = self.gate.lock().unwrap().take();
            if let Some(gate) = gate {
                gate.arrived.send(()).unwrap();
                gate.opens.recv().unwrap();
                *gate.panicked_at.lock().unwrap() = Some(Instant::now());
                // Without the hook, which may take seconds to print a backtrace before anything unwinds.
                std::panic::resume_unwind(Box::new("at the gate"));
            }
        }
        self.inner.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.inner.metadata(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path, kind)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_space(dir)
    }
}
