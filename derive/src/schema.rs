//! `#[derive(Schema)]`: what of a type goes into its fingerprint.
//!
//! Folded, in this order: the version; struct or enum; `repr`, `#[rkyv(as = ..)]` and `#[rkyv(attr(..))]`; for an enum the number of its
//! variants and each variant's name and discriminant; the kind (named, tuple, unit) and number of the fields; each
//! field's name, its `#[rkyv(with = ..)]` and `#[rkyv(niche = ..)]`, and the fingerprint of its type.
//!
//! Not folded: the type's own name and place, and everything that does not reach the stored bytes. Every text is folded with its length
//! and every list with its count, so that no two forms run together.
//!
//! A type that contains itself would ask for its fingerprint while computing it. Where a field's type mentions
//! the type being derived (by its bare name or `Self`), `Recursive` stands for it. Types that contain each other in a ring of two
//! or more are refused by the compiler ("cycle detected"); break the ring with `#[schema(as = ..)]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Data, DeriveInput, Fields, GenericArgument, Ident, LitInt, PathArguments, Result, Token, Type, parse_quote,
};

use crate::refuse;

pub(crate) fn expand(mut input: DeriveInput) -> Result<TokenStream> {
    refuse::uncacheable(&input)?;
    let version = version(&input.attrs)?;
    let marks = marks(&input.attrs, &["as", "attr", "repr"])?;
    let form = match &input.data {
        Data::Struct(data) => {
            let fields = fields(&input, &data.fields)?;
            quote!(.text("struct") #(.text(#marks))* #fields)
        }
        Data::Enum(data) => {
            let count = data.variants.len() as u64;
            let mut variants = TokenStream::new();
            for variant in &data.variants {
                let name = variant.ident.unraw().to_string();
                let discriminant = variant.discriminant.as_ref().map_or(String::new(), |(_, value)| plain(value));
                let fields = fields(&input, &variant.fields)?;
                variants.extend(quote!(.text(#name).text(#discriminant) #fields));
            }
            quote!(.text("enum") #(.text(#marks))* .word(#count) #variants)
        }
        Data::Union(_) => return Ok(TokenStream::new()), // refused above
    };

    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::aurum_cache::Schema));
    }
    let name = &input.ident;
    let (parameters, arguments, conditions) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #parameters ::aurum_cache::Schema for #name #arguments #conditions {
            const FINGERPRINT: u64 = ::aurum_cache::__private::Fold::new("derived").word(#version) #form.end();
        }
    })
}

/// The calls that fold `fields`.
fn fields(input: &DeriveInput, fields: &Fields) -> Result<TokenStream> {
    let kind = match fields {
        Fields::Named(_) => "named",
        Fields::Unnamed(_) => "tuple",
        Fields::Unit => "unit",
    };
    let count = fields.len() as u64;
    let mut calls = quote!(.text(#kind).word(#count));
    for field in fields {
        let name = field.ident.as_ref().map_or(String::new(), |ident| ident.unraw().to_string());
        let marks = marks(&field.attrs, &["with", "niche"])?;
        let span = field.ty.span();
        let mut folded = match stand_in(&field.attrs)? {
            Some(other) => other,
            None => field.ty.clone(),
        };
        Unroll { input }.visit_type_mut(&mut folded);
        let fingerprint = quote_spanned!(span=> <#folded as ::aurum_cache::Schema>::FINGERPRINT);
        calls.extend(quote!(.text(#name) #(.text(#marks))* .word(#fingerprint)));
    }
    Ok(calls)
}

/// `#[schema(version = N)]`; 1 without.
fn version(attributes: &[Attribute]) -> Result<u64> {
    let mut version: Option<LitInt> = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("schema")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("version") {
                refuse::version(&meta, &mut version)
            } else {
                Err(meta.error("on a type, `#[schema(..)]` knows only `version`, as in `#[schema(version = 2)]`"))
            }
        })?;
    }
    version.map_or(Ok(1), |version| version.base10_parse())
}

/// `#[schema(as = Type)]` on a field.
fn stand_in(attributes: &[Attribute]) -> Result<Option<Type>> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("schema")) {
        let wrong = "on a field, `#[schema(..)]` knows only `as`, as in `#[schema(as = u64)]`";
        for argument in attribute.parse_args_with(Punctuated::<Argument, Token![,]>::parse_terminated)? {
            if argument.name != "as" || found.is_some() {
                return Err(syn::Error::new(argument.name.span(), wrong));
            }
            found = Some(syn::parse2(argument.value).map_err(|_| syn::Error::new(argument.name.span(), wrong))?);
        }
    }
    Ok(found)
}

/// What of `#[rkyv(..)]` and `#[repr(..)]` changes the stored bytes, as texts in order. Each begins with its name, and none is
/// equal to a kind of fields or a field's name, because of its colon.
fn marks(attributes: &[Attribute], wanted: &[&str]) -> Result<Vec<String>> {
    let mut marks = Vec::new();
    for attribute in attributes {
        if attribute.path().is_ident("repr") && wanted.contains(&"repr") {
            marks.push(format!("repr:{}", plain(&attribute.meta)));
        }
        if attribute.path().is_ident("rkyv") {
            for argument in attribute.parse_args_with(Punctuated::<Argument, Token![,]>::parse_terminated)? {
                let name = argument.name.to_string();
                if wanted.contains(&name.as_str()) {
                    marks.push(format!("{name}:{}", plain(&argument.value)));
                }
            }
        }
    }
    Ok(marks)
}

/// Tokens as a text that does not depend on the user's spaces.
fn plain(tokens: &impl ToTokens) -> String {
    fn write(tokens: TokenStream, out: &mut String) {
        use proc_macro2::{Delimiter, TokenTree};
        for token in tokens {
            match token {
                TokenTree::Group(group) => {
                    let (open, close) = match group.delimiter() {
                        Delimiter::Parenthesis => ("(", ")"),
                        Delimiter::Brace => ("{", "}"),
                        Delimiter::Bracket => ("[", "]"),
                        Delimiter::None => ("", ""),
                    };
                    out.push_str(open);
                    write(group.stream(), out);
                    out.push_str(close);
                }
                other => {
                    out.push_str(&other.to_string());
                    out.push(' ');
                }
            }
        }
    }
    let mut out = String::new();
    write(tokens.to_token_stream(), &mut out);
    out
}

/// One of `name`, `name = ..`, `name(..)`, where the name may be a keyword (`as`, `crate`) and the value is left as tokens: which
/// arguments rkyv knows is rkyv's business.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) value: TokenStream,
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.call(Ident::parse_any)?;
        if input.peek(syn::token::Paren) {
            let inner;
            syn::parenthesized!(inner in input);
            return Ok(Self { name, value: inner.parse()? });
        }
        if input.parse::<Option<Token![=]>>()?.is_none() {
            return Ok(Self { name, value: TokenStream::new() });
        }
        // A type has commas of its own, so the value cannot be taken up to the next one.
        let value = match input.fork().parse::<Type>() {
            Ok(_) => input.parse::<Type>()?.into_token_stream(),
            Err(_) => input.parse::<syn::Expr>()?.into_token_stream(),
        };
        Ok(Self { name, value })
    }
}

/// Puts `Recursive<(arguments)>` where a type mentions the type that contains it.
struct Unroll<'a> {
    input: &'a DeriveInput,
}

impl VisitMut for Unroll<'_> {
    fn visit_type_mut(&mut self, mentioned: &mut Type) {
        visit_mut::visit_type_mut(self, mentioned);
        let Type::Path(path) = &*mentioned else { return };
        let Some(segment) = path.path.segments.last() else { return };
        let bare = path.qself.is_none() && path.path.segments.len() == 1 && path.path.leading_colon.is_none();
        if !bare || (segment.ident != "Self" && segment.ident != self.input.ident) {
            return;
        }
        let is_constant = |argument: &Type| {
            let Type::Path(path) = argument else { return false };
            self.input.generics.const_params().any(|constant| path.path.is_ident(&constant.ident))
        };
        let arguments: Vec<&Type> = match &segment.arguments {
            PathArguments::AngleBracketed(list) => list
                .args
                .iter()
                .filter_map(|argument| match argument {
                    GenericArgument::Type(argument) if !is_constant(argument) => Some(argument),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        *mentioned = parse_quote!(::aurum_cache::__private::Recursive<(#(#arguments,)*)>);
    }
}
