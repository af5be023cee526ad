//! The macros of aurum-cache: `#[cacheable]` and `#[derive(Schema)]`.
//!
//! `#[cacheable]` is a spelling: it writes the three derives of rkyv, points them at the rkyv that aurum-cache itself uses, and adds
//! `#[derive(Schema)]`. It leaves everything of the user's in place and adds nothing that is there already.
//!
//! `#[derive(Schema)]` folds the form of a type into one constant: names and order of the fields, the fingerprint of each field's
//! type, and with that, all the way down. See [`schema`] for what is folded and what is not.
//!
//! Both refuse early, at the place in the user's code, and say what to write instead.

mod cacheable;
mod refuse;
mod schema;

use proc_macro::TokenStream;

/// Makes a struct or an enum a value that can be cached.
///
/// Derives `Archive`, `Serialize` and `Deserialize` of rkyv and the `Schema` of aurum-cache. The crate that uses it need not
/// depend on rkyv.
///
/// ```ignore
/// #[cacheable]
/// struct Curve { market: String, points: Vec<f64> }
///
/// #[cacheable(version = 2)] // same fields, new meaning: leaves the values stored under version 1 behind
/// struct Price { cents: i64 }
/// ```
///
/// Write it above other derives. Your own derives and `#[rkyv(..)]` attributes stay as they are, your own `#[rkyv(crate = ..)]`
/// included, and a derive of rkyv's that you wrote below it is not repeated. Next to a bare `Archive`, a bare `Serialize` or
/// `Deserialize` counts as rkyv's; write `serde::Serialize` in full there.
#[proc_macro_attribute]
pub fn cacheable(arguments: TokenStream, item: TokenStream) -> TokenStream {
    cacheable::expand(arguments.into(), item.into()).into()
}

/// Implements `Schema`: a fingerprint of the type's form, at compile time.
///
/// A change of a field's name, place or type, or of a variant's, changes the fingerprint; renaming the type itself does not.
/// `#[schema(version = 2)]` on the type mixes a version in (`#[cacheable(version = 2)]` does that for you), and
/// `#[schema(as = u64)]` on a field takes another type's fingerprint, for field types of other crates that are stored
/// through `#[rkyv(with = ..)]`.
#[proc_macro_derive(Schema, attributes(schema, rkyv))]
pub fn schema(item: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(item as syn::DeriveInput);
    schema::expand(input).unwrap_or_else(syn::Error::into_compile_error).into()
}
