use aurum_cache::cacheable;

#[cacheable]
union Bits {
    whole: u64,
    halves: [u32; 2],
}

fn main() {}
