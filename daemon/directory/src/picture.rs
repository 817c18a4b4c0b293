//! Pictures of users: what they are is looked at, not believed.

/// The first bytes of every PNG file (PNG specification, section 5.2).
const PNG_SIGNATURE: &[u8] = &[0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];

/// What follows them: the header chunk, which is 13 bytes long.
const PNG_HEADER: &[u8] = &[0, 0, 0, 13, b'I', b'H', b'D', b'R'];

/// Start of image, and the beginning of the marker that follows (ITU-T T.81, annex B).
const JPEG_START: &[u8] = &[0xff, 0xd8, 0xff];

/// Bytes of the shortest header of a BMP file with its information.
const BMP_BYTES_MIN: usize = 26;

/// In what form a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureForm {
    /// Portable Network Graphics.
    Png,
    /// JPEG.
    Jpeg,
    /// A Windows bitmap.
    Bmp,
}

impl PictureForm {
    /// The form of a file, by what is in it; `None` when it is none of these.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let is_png = || bytes.strip_prefix(PNG_SIGNATURE).is_some_and(|rest| rest.starts_with(PNG_HEADER));
        // Two letters alone would be a poor sign: the length that the file says of itself is another.
        let is_bmp = || {
            let said = bytes.get(2..6).and_then(|said| said.try_into().ok()).map(u32::from_le_bytes);
            bytes.starts_with(b"BM")
                && bytes.len() >= BMP_BYTES_MIN
                && said.and_then(|said| usize::try_from(said).ok()) == Some(bytes.len())
        };
        if is_png() {
            Some(Self::Png)
        } else if bytes.starts_with(JPEG_START) {
            Some(Self::Jpeg)
        } else if is_bmp() {
            Some(Self::Bmp)
        } else {
            None
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Bmp => "image/bmp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PictureForm;

    fn check(bytes: &[u8], expected: Option<PictureForm>) {
        assert_eq!(PictureForm::of(bytes), expected, "{bytes:?}");
    }

    fn bmp(says: u32) -> Vec<u8> {
        [b"BM".as_slice(), &says.to_le_bytes(), &[0; 24]].concat()
    }

    #[test]
    fn what_a_picture_is_is_told_by_its_content() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";
        check(png, Some(PictureForm::Png));
        check(&png[..12], None);
        check(b"\xff\xd8\xff\xe0\0\x10JFIF", Some(PictureForm::Jpeg));
        check(b"\xff\xd8", None);
        check(&bmp(30), Some(PictureForm::Bmp));
        check(&bmp(31), None);
        check(b"BM", None);
        check(b"", None);
        check(b"<svg onload=alert(1)>", None);
        check(b"GIF89a", None);
    }
}
