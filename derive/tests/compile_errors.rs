//! What the macros say to someone who wrote something that cannot be cached. The texts are part of the interface.

#[test]
fn a_compile_error_says_what_to_write_instead() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_errors/*.rs");
}
