//! What the programs `sutler` and `sutler-tuf` share: asking a repository over HTTP.
//!
//! | Question | Room |
//! |---|---|
//! | How does a request end? | [`http`] |

pub mod http;
