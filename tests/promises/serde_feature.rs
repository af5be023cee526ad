//! The feature `serde`: with it the public data can be written and read by serde, without it it cannot; settings always can.

use std::marker::PhantomData;

use aurum_cache::{
    Analytics, CacheConfig, FetchAnalytics, Health, InvalidationEvent, Latency, MissCauses, NamespaceAnalytics, Scope, Tier,
    TierAnalytics, TierHealth, TierState, TtlPolicy, WarmingReport,
};

/// Asks at compile time whether a type has a trait: what a type has itself goes before what a trait gives to all.
struct Written<T>(PhantomData<T>);
struct Read<T>(PhantomData<T>);

trait Otherwise {
    const IS: bool = false;
}

impl<T> Otherwise for Written<T> {}
impl<T> Otherwise for Read<T> {}

impl<T: serde::Serialize> Written<T> {
    const IS: bool = true;
}

impl<T: serde::de::DeserializeOwned> Read<T> {
    const IS: bool = true;
}

/// `(can be written, can be read)`.
macro_rules! serde_of {
    ($type:ty) => {
        (Written::<$type>::IS, Read::<$type>::IS)
    };
}

#[test]
fn the_public_data_has_serde_if_the_feature_is_on_and_settings_always() {
    let on = cfg!(feature = "serde");
    macro_rules! both {
        ($($type:ty),*) => { $( assert_eq!(serde_of!($type), (on, on), stringify!($type)); )* };
    }
    macro_rules! written {
        ($($type:ty),*) => { $( assert_eq!(serde_of!($type), (on, false), stringify!($type)); )* };
    }
    both!(TtlPolicy, Tier, TierState, InvalidationEvent, Scope);
    both!(Analytics, TierAnalytics, NamespaceAnalytics, FetchAnalytics, MissCauses, Latency);
    written!(Health, TierHealth, WarmingReport);
    assert_eq!(serde_of!(CacheConfig), (true, true));
}
