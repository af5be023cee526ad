//! What changes a fingerprint, what does not, and that every form has its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasherDefault;

use super::*;
use crate::cacheable;

fn of<T: Schema + ?Sized>() -> u64 {
    T::FINGERPRINT
}

/// Declares the type `T` in a module of its own and gives its fingerprint.
macro_rules! form {
    ($($item:tt)*) => {{
        #[allow(dead_code, unused_imports)]
        mod form {
            use super::*;
            #[derive(crate::Schema)]
            $($item)*
        }
        of::<form::T>()
    }};
}

#[track_caller]
fn all_differ(prints: &[u64]) {
    for (at, print) in prints.iter().enumerate() {
        assert!(!prints[..at].contains(print), "number {at} repeats an earlier one");
    }
}

#[test]
fn every_type_of_std_has_its_own_fingerprint() {
    macro_rules! all {
        ($($type:ty),* $(,)?) => { &[$(of::<$type>()),*] };
    }
    all_differ(all![
        u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, str, String, NonZeroU8, NonZeroU16,
        NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize, NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128,
        NonZeroIsize, Duration, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, RangeFull, Range<u8>,
        RangeInclusive<u8>, RangeFrom<u8>, RangeTo<u8>, RangeToInclusive<u8>, Bound<u8>, [u8], [u8; 0], [u8; 1], [u8; 2], Vec<u8>,
        Vec<i8>, VecDeque<u8>, Vec<Vec<u8>>, Option<u8>, Option<Option<u8>>, Box<u8>, Box<str>, Box<[u8]>, Rc<u8>, Arc<u8>,
        PhantomData<u8>, Result<u8, u16>, Result<u16, u8>, HashMap<u8, u16>, HashMap<u16, u8>, BTreeMap<u8, u16>, HashSet<u8>,
        BTreeSet<u8>, (), (u8,), (u8, u8), (u8, (u8,)), ((u8,), u8), (u8, u16), (u16, u8), [(); 3], ((), (), ()),
    ]);
}

#[test]
fn the_hasher_of_a_map_does_not_reach_the_stored_form() {
    type Other = BuildHasherDefault<std::hash::DefaultHasher>;
    assert_eq!(of::<HashMap<u8, u8>>(), of::<HashMap<u8, u8, Other>>());
    assert_eq!(of::<HashSet<u8>>(), of::<HashSet<u8, Other>>());
}

#[test]
fn every_change_of_a_struct_is_noticed() {
    all_differ(&[
        form!(
            pub(super) struct T {
                a: u32,
                b: u32,
            }
        ),
        form!(
            pub(super) struct T {
                b: u32,
                a: u32,
            }
        ),
        form!(
            pub(super) struct T {
                a: u32,
                b: i32,
            }
        ),
        form!(
            pub(super) struct T {
                a: u32,
                c: u32,
            }
        ),
        form!(
            pub(super) struct T {
                a: u32,
            }
        ),
        form!(
            pub(super) struct T {
                ab: u32,
            }
        ),
        form!(
            pub(super) struct T {
                a: u32,
                b: u32,
                c: (),
            }
        ),
        form!(
            pub(super) struct T(u32, u32);
        ),
        form!(
            pub(super) struct T(u32, i32);
        ),
        form!(
            pub(super) struct T(u32);
        ),
        form!(
            pub(super) struct T();
        ),
        form!(
            pub(super) struct T {}
        ),
        form!(
            pub(super) struct T;
        ),
        form!(
            #[schema(version = 2)]
            pub(super) struct T;
        ),
        form!(
            #[schema(version = 3)]
            pub(super) struct T;
        ),
        form!(
            pub(super) enum T {
                T,
            }
        ),
    ]);
}

#[test]
fn every_change_of_an_enum_is_noticed() {
    all_differ(&[
        form!(
            pub(super) enum T {
                A,
                B,
            }
        ),
        form!(
            pub(super) enum T {
                B,
                A,
            }
        ),
        form!(
            pub(super) enum T {
                A,
                B,
                C,
            }
        ),
        form!(
            pub(super) enum T {
                A,
                Bc,
            }
        ),
        form!(
            pub(super) enum T {
                A = 1,
                B = 2,
            }
        ),
        form!(
            pub(super) enum T {
                A = 2,
                B = 1,
            }
        ),
        form!(
            pub(super) enum T {
                A,
                B(),
            }
        ),
        form!(
            pub(super) enum T {
                A,
                B {},
            }
        ),
        form!(
            pub(super) enum T {
                A,
                B(u8),
            }
        ),
        form!(
            pub(super) enum T {
                A(u8),
                B,
            }
        ),
        form!(
            pub(super) enum T {
                A,
                B { x: u8 },
            }
        ),
        form!(
            pub(super) enum T {
                A,
                B { y: u8 },
            }
        ),
        form!(
            pub(super) enum T {
                A,
                B { x: u16 },
            }
        ),
        form!(
            #[repr(u16)]
            pub(super) enum T {
                A,
                B,
            }
        ),
    ]);
}

mod one {
    #[derive(crate::Schema)]
    pub(super) struct Inner {
        _x: u8,
    }
}
mod two {
    #[derive(crate::Schema)]
    pub(super) struct Inner {
        _x: u16,
    }
}

#[test]
fn a_change_deep_inside_is_noticed() {
    assert_ne!(
        form!(
            pub(super) struct T {
                x: Vec<Option<one::Inner>>,
            }
        ),
        form!(
            pub(super) struct T {
                x: Vec<Option<two::Inner>>,
            }
        )
    );
}

#[test]
fn what_changes_the_stored_form_through_rkyv_is_noticed() {
    all_differ(&[
        form!(
            pub(super) struct T {
                x: String,
            }
        ),
        form!(
            pub(super) struct T {
                #[rkyv(with = rkyv::with::Inline)]
                x: String,
            }
        ),
        form!(
            pub(super) struct T {
                #[rkyv(omit_bounds, with = rkyv::with::Map<rkyv::with::Inline>)]
                x: String,
            }
        ),
        form!(
            pub(super) struct T {
                #[rkyv(niche = Bool)]
                x: String,
            }
        ),
        form!(
            #[rkyv(attr(repr(C)))]
            pub(super) struct T {
                x: String,
            }
        ),
        form!(
            #[rkyv(as = Other<u8, u16>, compare(PartialEq))]
            pub(super) struct T {
                x: String,
            }
        ),
    ]);
}

#[test]
fn what_does_not_reach_the_stored_form_changes_nothing() {
    #[derive(crate::Schema)]
    struct Elsewhere {
        r#a: u32,
        b: Option<std::string::String>,
    }
    let _ = |elsewhere: Elsewhere| (elsewhere.a, elsewhere.b);
    let plain = form!(
        pub(super) struct T {
            a: u32,
            b: Option<String>,
        }
    );
    assert_eq!(plain, of::<Elsewhere>());
    assert_eq!(
        plain,
        form!(
            pub(super) struct T {
                pub(super) a: u32,
                #[rkyv(omit_bounds)]
                b: Option<String>,
            }
        )
    );
    assert_eq!(
        plain,
        form!(
            #[rkyv(compare(PartialEq), derive(Debug))]
            pub(super) struct T {
                a: u32,
                b: Option<String>,
            }
        )
    );
    assert_eq!(
        plain,
        form!(
            #[schema(version = 1)]
            pub(super) struct T {
                a: u32,
                b: Option<String>,
            }
        )
    );
    assert_eq!(
        plain,
        form!(
            pub(super) struct T {
                a: u32,
                #[schema(as = Option<String>)]
                b: std::path::PathBuf,
            }
        )
    );
}

#[test]
fn generic_types_fold_their_arguments() {
    #[derive(crate::Schema)]
    struct Pair<A, B, const N: usize> {
        _a: A,
        _b: [B; N],
    }
    all_differ(&[of::<Pair<u8, u16, 2>>(), of::<Pair<u16, u8, 2>>(), of::<Pair<u8, u16, 3>>()]);
}

#[test]
fn a_type_may_contain_itself() {
    all_differ(&[
        form!(
            pub(super) struct T {
                next: Option<Box<T>>,
            }
        ),
        form!(
            pub(super) struct T {
                next: Vec<T>,
            }
        ),
        form!(
            pub(super) struct T {
                next: Vec<u8>,
            }
        ),
    ]);
    assert_eq!(
        form!(
            pub(super) struct T {
                next: Vec<T>,
            }
        ),
        form!(
            pub(super) struct T {
                next: Vec<Self>,
            }
        )
    );
    #[derive(crate::Schema)]
    struct List<A> {
        _item: A,
        _next: Option<Box<List<A>>>,
    }
    assert_ne!(of::<List<u8>>(), of::<List<u16>>());
}

#[test]
fn the_fingerprints_of_version_one_stay_what_they_are() {
    // Stored values carry these. If this fails, every store in the field is left behind on the next start.
    let curve = form!(
        pub(super) struct T {
            market: String,
            points: Vec<f64>,
        }
    );
    assert_eq!([of::<u64>(), of::<String>(), curve], [0x0fb3_d8aa_88bf_9b52, 0x6429_2e2a_4737_9465, 0x0cde_fba2_a361_ce96]);
}

#[cacheable]
#[derive(Clone, Debug, PartialEq)]
#[rkyv(compare(PartialEq), derive(Debug))]
struct Curve {
    market: String,
    points: Vec<(u32, f64)>,
    kind: Kind,
}

#[cacheable(version = 2)]
#[derive(Clone, Debug, PartialEq, rkyv::Archive, ::rkyv::Serialize)]
#[rkyv(crate = ::rkyv, compare(PartialEq), derive(Debug))]
enum Kind {
    Spot,
    Forward { days: u16 },
    Mixed(Box<[u8]>),
}

#[cacheable]
#[derive(Debug, PartialEq, serde::Serialize)]
struct Generic<T> {
    inner: Option<T>,
}

#[test]
fn a_cacheable_type_is_archived_and_read_back() {
    let curve = Curve { market: "pjm".into(), points: vec![(1, 2.5)], kind: Kind::Forward { days: 3 } };
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&curve).unwrap();
    let view = rkyv::access::<ArchivedCurve, rkyv::rancor::Error>(&bytes).unwrap();
    assert_eq!(*view, curve);
    assert_eq!(rkyv::deserialize::<Curve, rkyv::rancor::Error>(view).unwrap(), curve);
    all_differ(&[of::<Curve>(), of::<Kind>(), of::<Generic<Curve>>(), of::<Generic<Kind>>()]);
    let _ = (Kind::Spot, Kind::Mixed(Box::default()), Generic { inner: Some(1u8) });
}
