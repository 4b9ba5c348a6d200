//! Peers' own programs as judges: the reference implementation's mining device and its translator, as they are published,
//! against the real pool; and its pool, against the real template provider. `make fixtures` builds them into the cache.

mod mining_device;
mod reference_pool;
mod translator;
