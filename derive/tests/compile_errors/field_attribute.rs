use aurum_cache::Schema;

#[derive(Schema)]
struct Price {
    #[schema(version = 2)]
    cents: i64,
}

#[derive(Schema)]
#[schema(name = "price")]
struct Named {
    cents: i64,
}

fn main() {}
