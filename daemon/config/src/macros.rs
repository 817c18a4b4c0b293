//! `settings!` and `choices!`: a section of the configuration, or a closed set of words, declared once.

/// Declares the struct of a section, its keys with type, default and optional range, and how to read it from the merged
/// layers. The documentation comments go into the sample file as they stand.
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])*
                $field:ident : $type:ty = $default:literal $(in $least:literal ..= $greatest:literal)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl $name {
            /// What the section is about, a line an entry.
            pub(crate) const ABOUT: &'static [&'static str] = &[$($about),*];

            /// The section's keys, in the order of the documentation.
            pub(crate) const KEYS: &'static [KeySpec] = &[$(
                KeySpec {
                    key: concat!($section, stringify!($field)),
                    default: $default,
                    shape: <$type as Setting>::SHAPE,
                    choices: <$type as Setting>::CHOICES,
                    range: settings!(@range $($least, $greatest)?),
                    doc: &[$($doc),*],
                    canonical: |raw| settings!(@read $type, raw $(, $least, $greatest)?).map(|value: $type| Setting::write(&value)),
                }
            ),*];

            pub(super) fn read(merged: &Merged, errors: &mut Vec<ConfigError>) -> Option<Self> {
                $(
                    let $field = merged.value(concat!($section, stringify!($field)), errors, |raw| {
                        settings!(@read $type, raw $(, $least, $greatest)?)
                    });
                )*
                Some(Self { $( $field: $field?, )* })
            }
        }
    };
    (@range) => { None };
    (@range $least:literal, $greatest:literal) => { Some(($least, $greatest)) };
    (@read $type:ty, $raw:expr) => { <$type as Setting>::read($raw) };
    (@read $type:ty, $raw:expr, $least:literal, $greatest:literal) => { read_within::<$type>($raw, $least, $greatest) };
}

/// Declares an enum whose values are written as one of a few words.
macro_rules! choices {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $( $(#[$doc:meta])* $variant:ident = $word:literal ),* $(,)?
        }
        shape $shape:literal
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$doc])* $variant, )*
        }

        impl $name {
            /// The word as it is written in the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl Setting for $name {
            const SHAPE: &'static str = $shape;
            const CHOICES: &'static [&'static str] = &[$($word),*];

            fn read(raw: &Raw) -> Result<Self, String> {
                match raw {
                    $( Raw::Text(text) if text == $word => Ok(Self::$variant), )*
                    _ => Err(Self::expected(raw)),
                }
            }

            fn write(&self) -> String {
                quoted(self.as_str())
            }
        }
    };
}

pub(crate) use {choices, settings};
