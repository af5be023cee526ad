use aurum_cache::cacheable;

#[cacheable]
struct Raw {
    at: *const u8,
}

#[cacheable]
struct Callback {
    call: fn(u64) -> u64,
}

#[cacheable]
struct Dynamic {
    any: Box<dyn Send>,
}

fn main() {}
