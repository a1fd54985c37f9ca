//! x
#[derive(Default)]
pub(crate) struct Filters;
