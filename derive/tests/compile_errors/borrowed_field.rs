use aurum_cache::cacheable;

#[cacheable]
struct Curve {
    market: &'static str,
}

#[cacheable]
struct Points {
    points: Vec<&'static [f64]>,
}

fn main() {}
