//! Hears what is logged in this thread.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Every event, with all its fields as they would be printed, a line each.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<String>>);

/// What the work logs, and behind it what it gives back.
pub fn to(work: impl FnOnce() -> String) -> String {
    let listener = Listener::default();
    let returned = tracing::subscriber::with_default(listener.clone(), work);
    let heard = listener.0.lock().unwrap().clone();
    heard + &returned
}

struct Printer<'a>(&'a mut String);

impl Visit for Printer<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.0.lock().unwrap();
        event.record(&mut Printer(&mut text));
        text.push('\n');
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
