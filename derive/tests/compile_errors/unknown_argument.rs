use aurum_cache::cacheable;

#[cacheable(versoin = 2)]
struct Price {
    cents: i64,
}

fn main() {}
