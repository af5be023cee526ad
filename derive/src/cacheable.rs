//! `#[cacheable]`: which derives and attributes are missing on this item?

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit_mut::VisitMut;
use syn::{Attribute, DeriveInput, Item, LitInt, Path, Token};

use crate::refuse;

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    build(arguments, item.clone()).unwrap_or_else(|error| beside(error, item))
}

fn build(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let version = version(arguments)?;
    if !matches!(syn::parse2::<Item>(item.clone())?, Item::Struct(_) | Item::Enum(_) | Item::Union(_)) {
        return Err(syn::Error::new_spanned(
            &item,
            "`#[cacheable]` goes on a struct or an enum; put it on the type of the value",
        ));
    }
    let input: DeriveInput = syn::parse2(item)?;
    refuse::uncacheable(&input)?;

    let derives = Derives::of(&input.attrs)?;
    let missing = derives.missing();
    let rkyv = (!names_a_crate(&input.attrs)).then(|| quote!(#[rkyv(crate = ::aurum_cache::rkyv)]));
    let version = version.map(|version| quote!(#[schema(version = #version)]));
    Ok(quote! {
        #[derive(#(#missing),*)]
        #rkyv
        #version
        #input
    })
}

/// The argument `version = N`, if there is one.
fn version(arguments: TokenStream) -> syn::Result<Option<LitInt>> {
    let mut version = None;
    syn::meta::parser(|meta| {
        if !meta.path.is_ident("version") {
            let name = meta.path.to_token_stream().to_string().replace(' ', "");
            return Err(meta.error(format!(
                "`#[cacheable]` does not know `{name}`; its only argument is `version`, as in `#[cacheable(version = 2)]`"
            )));
        }
        refuse::version(&meta, &mut version)
    })
    .parse2(arguments)?;
    Ok(version)
}

/// What the user derives already.
#[derive(Default)]
struct Derives {
    archive: bool,
    serialize: bool,
    deserialize: bool,
    schema: bool,
}

impl Derives {
    fn of(attributes: &[Attribute]) -> syn::Result<Self> {
        let mut paths = Vec::new();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            paths.extend(attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated)?);
        }
        // A bare `Serialize` may be serde's. Next to a bare `Archive` it was imported with it.
        let bare = paths.iter().any(|path| path.is_ident("Archive"));
        let has = |name: &str| paths.iter().any(|path| (bare && path.is_ident(name)) || is_of(path, "rkyv", name));
        let schema = paths.iter().any(|path| path.is_ident("Schema") || is_of(path, "aurum_cache", "Schema"));
        Ok(Self { archive: has("Archive"), serialize: has("Serialize"), deserialize: has("Deserialize"), schema })
    }

    fn missing(&self) -> Vec<TokenStream> {
        let wanted = [
            (self.archive, quote!(::aurum_cache::rkyv::Archive)),
            (self.serialize, quote!(::aurum_cache::rkyv::Serialize)),
            (self.deserialize, quote!(::aurum_cache::rkyv::Deserialize)),
            (self.schema, quote!(::aurum_cache::Schema)),
        ];
        wanted.into_iter().filter(|(there, _)| !there).map(|(_, path)| path).collect()
    }
}

/// Is this `..::krate::..::name`?
fn is_of(path: &Path, krate: &str, name: &str) -> bool {
    path.segments.iter().any(|segment| segment.ident == krate) && path.segments.last().is_some_and(|last| last.ident == name)
}

/// Does some `#[rkyv(..)]` say `crate = ..`?
fn names_a_crate(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("rkyv")).any(|attribute| {
        attribute
            .parse_args_with(Punctuated::<crate::schema::Argument, Token![,]>::parse_terminated)
            .is_ok_and(|arguments| arguments.iter().any(|argument| argument.name == "crate"))
    })
}

/// The error and, so that it stays the only one, the item without the attributes that only make sense with our derives.
fn beside(error: syn::Error, item: TokenStream) -> TokenStream {
    struct Strip;
    impl VisitMut for Strip {
        fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
            attributes.retain(|attribute| {
                let path = attribute.path();
                !path.is_ident("rkyv") && !path.is_ident("schema")
            });
        }
    }
    let error = error.into_compile_error();
    match syn::parse2::<Item>(item.clone()) {
        Ok(mut item) => {
            Strip.visit_item_mut(&mut item);
            quote!(#error #item)
        }
        Err(_) => quote!(#error #item),
    }
}
