use aurum_cache::Schema;

struct Foreign(u64);

#[derive(Schema)]
struct Price {
    cents: Foreign,
}

fn main() {}
