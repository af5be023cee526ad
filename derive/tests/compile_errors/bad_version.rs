use aurum_cache::cacheable;

#[cacheable(version = 0)]
struct Zero;

#[cacheable(version = "2")]
struct Text;

#[cacheable(version)]
struct Bare;

#[cacheable(version = 2, version = 3)]
struct Twice;

fn main() {}
