//! Pictures: what they are is looked at, not believed.

/// Bytes of a picture at most, by default (requirement H2).
pub const PICTURE_BYTES_MAX: usize = 200 * 1024;

/// What a picture may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureKind {
    /// ISO/IEC 15948.
    Png,
    /// ISO/IEC 10918-1.
    Jpeg,
    /// Windows bitmap.
    Bmp,
}

/// Why a picture is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// Too large, or without an end.
    #[error("the picture is larger than {0} bytes")]
    TooLarge(usize),
    /// None of the three, whatever it is called.
    #[error("the picture is neither PNG, JPEG nor BMP")]
    Kind,
}

/// A picture while it is received: it never holds more than its limit.
#[derive(Debug)]
pub struct Picture {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Picture {
    /// One of at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    /// Takes what came.
    ///
    /// # Errors
    /// When it is too large: nothing more is to be read then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), PictureError> {
        if self.bytes.len().saturating_add(bytes.len()) > self.bytes_max {
            return Err(PictureError::TooLarge(self.bytes_max));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// All has come.
    ///
    /// # Errors
    /// When its first bytes are of nothing that is taken, or it breaks off before its own end.
    pub fn whole(self) -> Result<(PictureKind, Vec<u8>), PictureError> {
        let bytes = &self.bytes;
        let bmp_bytes = bytes.get(2..6).and_then(|length| Some(u32::from_le_bytes(length.try_into().ok()?) as usize));
        let kind = if bytes.starts_with(b"\x89PNG\r\n\x1a\n")
            && bytes.get(12..16) == Some(b"IHDR")
            && bytes.ends_with(b"IEND\xaeB`\x82")
        {
            PictureKind::Png
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) && bytes.ends_with(&[0xff, 0xd9]) {
            PictureKind::Jpeg
        } else if bytes.starts_with(b"BM") && bmp_bytes == Some(bytes.len()) {
            PictureKind::Bmp
        } else {
            return Err(PictureError::Kind);
        };
        Ok((kind, self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken() {
        fn check(bytes: &[u8], expected: Result<PictureKind, PictureError>) {
            let mut picture = Picture::new(64);
            let found = bytes.chunks(7).try_for_each(|part| picture.take(part)).and_then(|()| picture.whole());
            assert_eq!(found.map(|(kind, _)| kind), expected, "{bytes:?}");
        }
        check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR....\0\0\0\0IEND\xaeB`\x82", Ok(PictureKind::Png));
        check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR....", Err(PictureError::Kind));
        check(b"\xff\xd8\xff\xe0....\xff\xd9", Ok(PictureKind::Jpeg));
        check(b"\xff\xd8\xff\xe0....", Err(PictureError::Kind));
        check(b"BM\x0a\0\0\0....", Ok(PictureKind::Bmp));
        check(b"BM\x0b\0\0\0....", Err(PictureError::Kind));
        check(b"GIF89a", Err(PictureError::Kind));
        check(b"<svg onload='x'></svg>", Err(PictureError::Kind));
        check(b"", Err(PictureError::Kind));
        check(&[0xff; 65], Err(PictureError::TooLarge(64)));
    }

    #[test]
    fn one_that_never_ends_fills_nothing() {
        let mut picture = Picture::new(PICTURE_BYTES_MAX);
        let taken = (0..1_000_000).take_while(|_| picture.take(&[0; 4096]).is_ok()).count();
        assert_eq!(taken, 50);
    }
}
