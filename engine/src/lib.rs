//! Thread-per-core shards over io_uring.
