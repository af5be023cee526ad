//! What cannot be cached, said at the place and with the way out.
//!
//! rkyv and the trait solver would refuse all of this too, a page later and about code that the user did not write.

use syn::meta::ParseNestedMeta;
use syn::visit_mut::{self, VisitMut};
use syn::{Data, DeriveInput, Error, LitInt, Result, Type};

pub(crate) fn uncacheable(input: &DeriveInput) -> Result<()> {
    match &input.data {
        Data::Union(union) => {
            return Err(Error::new(
                union.union_token.span,
                "a union does not say which of its fields is valid, so it cannot be cached; use an enum",
            ));
        }
        Data::Enum(empty) if empty.variants.is_empty() => {
            return Err(Error::new_spanned(&input.ident, "an enum without variants has no value to cache; give it a variant"));
        }
        Data::Enum(_) | Data::Struct(_) => {}
    }
    if let Some(lifetime) = input.generics.lifetimes().next() {
        return Err(Error::new_spanned(
            lifetime,
            "a cached value outlives whatever it borrows from; own the data instead: \
             use `String` instead of `&str`, `Vec<T>` instead of `&[T]`, and remove the lifetime",
        ));
    }
    let mut search = Search { found: None };
    search.visit_derive_input_mut(&mut input.clone());
    search.found.map_or(Ok(()), Err)
}

/// Looks through the types of the fields. Not into attributes, where types of any kind may stand.
struct Search {
    found: Option<Error>,
}

impl VisitMut for Search {
    fn visit_attribute_mut(&mut self, _: &mut syn::Attribute) {}

    fn visit_generics_mut(&mut self, _: &mut syn::Generics) {}

    fn visit_type_mut(&mut self, found: &mut Type) {
        let why = match found {
            Type::Reference(reference) => Some(format!("a cached value owns its data; use {}", owned(&reference.elem))),
            Type::Ptr(_) => Some("a pointer means nothing outside this process; use `Box<T>` or the value itself".to_owned()),
            Type::BareFn(_) => {
                Some("a function has no bytes to store; store what it is called with, or an enum that names it".to_owned())
            }
            Type::TraitObject(_) | Type::ImplTrait(_) => {
                Some("a trait object has no known form to store; use an enum of the types it may be".to_owned())
            }
            _ => None,
        };
        match why {
            Some(why) if self.found.is_none() => self.found = Some(Error::new_spanned(found, why)),
            Some(_) => {}
            None => visit_mut::visit_type_mut(self, found),
        }
    }
}

/// The owned counterpart of `&referred`, as advice.
fn owned(referred: &Type) -> String {
    let text = quote::ToTokens::to_token_stream(referred).to_string().replace(' ', "");
    match referred {
        Type::Slice(slice) => {
            let item = quote::ToTokens::to_token_stream(&slice.elem).to_string().replace(' ', "");
            format!("`Vec<{item}>` instead of `&{text}`")
        }
        _ if text == "str" => "`String` instead of `&str`".to_owned(),
        _ => format!("`{text}` or `Box<{text}>` instead of `&{text}`"),
    }
}

/// Reads the value of `version = N` into `version`: once, and a whole number from 1.
pub(crate) fn version(meta: &ParseNestedMeta<'_>, version: &mut Option<LitInt>) -> Result<()> {
    if version.is_some() {
        return Err(meta.error("`version` stands here twice; keep one"));
    }
    let wrong = "a version is a whole number from 1 to 4294967295, as in `version = 2`";
    let value: syn::Expr = meta.value().and_then(|value| value.parse()).map_err(|_| meta.error(wrong))?;
    match &value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. })
            if number.base10_parse::<u32>().is_ok_and(|number| number >= 1) =>
        {
            *version = Some(number.clone());
            Ok(())
        }
        _ => Err(Error::new_spanned(value, wrong)),
    }
}
