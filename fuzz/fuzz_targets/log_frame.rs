#![no_main]
#![allow(missing_docs)]

pebble_fuzz::fuzz!(log_frame);
