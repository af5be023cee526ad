use aurum_cache::cacheable;

#[cacheable]
#[rkyv(compare(PartialEq))]
struct Curve<'a> {
    market: &'a str,
}

fn main() {}
