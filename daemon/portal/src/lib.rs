//! The portal: what people use in a browser. A process of its own that serves pages over HTTPS and hands on what a signed-in user asks to
//! the daemon.
//!
//! It holds no keys, opens no recording and keeps no list of users or sessions. A session is a token that the daemon made when a user
//! signed in; the browser keeps it in a cookie that no script can read, and each request carries it through here to the daemon, which
//! decides by its one permission function. Whoever takes this process over can do what its present visitors may do, while they visit, and
//! nothing else: there is nothing here by which to say that one is somebody.
//!
//! ```text
//! browser ──TLS──▶ serve: connections, handshakes, time-outs
//!                    ├─▶ assets: pages, from memory, compressed once
//!                    └─▶ app: cookie, same origin, rate ──Unix socket──▶ callvaultd: who is that, may they, do it
//! ```
//!
//! # What is bounded, and what happens at the bound
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | connections, and those of one address | [`serve::CONNECTIONS_MAX`], [`serve::CONNECTIONS_OF_ONE_MAX`] | closed at once |
//! | time of a TLS handshake | [`serve::HANDSHAKE_MAX`] | closed |
//! | time to send a head, and to be idle between two | [`serve::HEAD_MAX`] | closed |
//! | requests of one address | [`rate::REQUESTS`], of sign-in [`rate::SIGN_INS`] | 429 |
//! | body of a request, and time for it | [`app::BODY_BYTES_MAX`], [`app::BODY_MAX`] | 413, 408 |
//! | imports of users that are being read, and their size | [`app::IMPORTS_MAX`], [`app::IMPORT_BYTES_MAX`] | 503, 413 |
//! | wait for the daemon | [`daemon::CONNECT_MAX`], [`daemon::ANSWER_MAX`] | 503 |
//! | recordings that one list of the other API looks at | [`imagicle::ROWS_MAX`] | 400 |
//! | its sessions that are remembered | [`imagicle::credentials::SESSIONS_MAX`] | the one that ends first is forgotten |
//! | waveforms being worked out | [`app::WAVEFORMS_MAX`] | they wait for each other |
//! | pages that follow live calls | [`live::FOLLOWERS_MAX`] | 503 |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod assets;
mod command;
pub mod cookie;
pub mod daemon;
pub mod elsewhere;
pub mod imagicle;
pub mod live;
pub mod origin;
pub mod patterns;
pub mod rate;
pub mod serve;
pub mod tls;
pub mod waveform;

pub use command::main;
