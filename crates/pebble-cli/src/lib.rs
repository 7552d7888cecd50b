//! The pebble program: look into, fill, drain and measure a PebbleTree database.
