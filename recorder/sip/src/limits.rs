//! How large a message may be.

/// Most bytes of a message before its body. Real INVITEs have 2 to 4 KiB; a long Record-Route chain with Identity and History-Info
/// stays under 20. 64 KiB is also the most that a datagram can hold.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Most header fields of a message. Real INVITEs have 20 to 60; the bound keeps a look-up by name cheap.
pub const HEADERS_MAX: usize = 256;

/// Most bytes of a body. Offer and metadata together have 3 to 30 KiB, a long conference with vendor extensions 100; what is larger is
/// not a call's description.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// The largest message that is read. Whoever sends more is answered 413 or 513; on a stream the connection is closed besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of request line and header fields together; [`HEADER_BYTES_MAX`] unless set.
    pub header_bytes_max: usize,
    /// Most header fields; [`HEADERS_MAX`] unless set.
    pub headers_max: usize,
    /// Most bytes of body; [`BODY_BYTES_MAX`] unless set.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes_max: HEADER_BYTES_MAX, headers_max: HEADERS_MAX, body_bytes_max: BODY_BYTES_MAX }
    }
}
