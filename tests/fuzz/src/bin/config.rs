//! The config: no text makes the reader panic, and a mistake is always said in words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_node::config::Config;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});
