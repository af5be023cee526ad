use aurum_cache::cacheable;

#[cacheable]
enum Never {}

fn main() {}
