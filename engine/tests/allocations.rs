//! A shard's tick allocates nothing once it is warm.

#[path = "common/detached.rs"]
mod detached;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use detached::World;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts what this thread asks for.
struct Counting;

// SAFETY: everything is passed on to the system's allocator; the count is a thread-local without destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_tick_allocates_nothing() {
    const CONNECTIONS: usize = 64;
    let mut world = World::new(CONNECTIONS);
    let (mut frames, mut sent) = (vec![Vec::new(); CONNECTIONS], Vec::with_capacity(CONNECTIONS));
    let mut counts = Vec::new();
    for _ in 0..1_200 {
        world.seal_shares(0, &mut frames);
        let before = COUNT.with(Cell::get);
        world.share_tick(0, &mut frames, &mut sent);
        world.complete(&mut sent);
        counts.push(COUNT.with(Cell::get) - before);
    }
    assert!(counts[0] > 0, "the allocator counts");
    // The tables of seen shares grow with the shares of a tip, at powers of two: between those nothing is allotted.
    let warm = &counts[1_030..];
    assert_eq!(warm.iter().sum::<u64>(), 0, "{warm:?}");
}
