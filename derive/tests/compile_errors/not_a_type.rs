use aurum_cache::cacheable;

#[cacheable]
fn price() -> i64 {
    42
}

fn main() {
    price();
}
