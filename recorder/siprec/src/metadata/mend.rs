//! XML that is nearly well-formed, made so.
//!
//! Session border controllers build metadata by pasting text together, and so it reaches recorders with attributes without quotes,
//! prefixes that nobody declared, and display names with a bare `&`. None of it leaves any doubt about what is meant. What is
//! torn, wrongly nested or has a document type stays as it is, for the parser to refuse.

use std::collections::BTreeSet;

use super::xml::{ATTRIBUTES_MAX, opaque_ending};

/// Most prefixes declared on the root's behalf. Real documents have one or two.
const PREFIXES_MAX: usize = 16;

/// The document with its slips mended; none where it has others than those that can be.
pub(super) fn mend(text: &str) -> Option<String> {
    let begins_markup = |c: char| is_name_start(c) || matches!(c, '?' | '!');
    let from = text.match_indices('<').map(|(at, _)| at).find(|at| text[at + 1..].starts_with(begins_markup))?;
    let to = text.rfind('>')?;
    let mut mender = Mender { out: String::with_capacity(text.len() + text.len() / 8), ..Mender::default() };
    let mut rest = text.get(from..=to)?;
    while !rest.is_empty() {
        rest = mender.step(rest)?;
    }
    mender.finish()
}

#[derive(Default)]
struct Mender {
    out: String,
    /// Where the root's start tag can take declarations.
    root_at: Option<usize>,
    /// Prefixes that the root declares itself.
    declared: BTreeSet<String>,
    /// Prefixes of elements and attributes.
    used: BTreeSet<String>,
}

impl Mender {
    /// Takes over a text or a tag, and gives back what follows it.
    fn step<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        let Some(tag) = rest.strip_prefix('<') else {
            let (text, rest) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
            self.push_escaped(text);
            return Some(rest);
        };
        if let Some(ending) = opaque_ending(rest.as_bytes()) {
            let ending = std::str::from_utf8(ending).ok()?;
            let end = rest.find(ending)? + ending.len();
            self.out += rest.get(..end)?;
            return rest.get(end..);
        }
        match tag.chars().next() {
            Some('/') => {
                let end = rest.find('>')? + 1;
                self.out += rest.get(..end)?;
                rest.get(end..)
            }
            Some(first) if is_name_start(first) => self.start_tag(tag),
            Some('!') => None,
            _ => {
                self.out += "&lt;";
                Some(tag)
            }
        }
    }

    /// `tag` begins with the element's name.
    fn start_tag<'a>(&mut self, tag: &'a str) -> Option<&'a str> {
        let (name, mut rest) = word(tag, |c| c.is_whitespace() || matches!(c, '/' | '>'));
        if !is_name(name) {
            return None;
        }
        self.out.push('<');
        self.out += name;
        self.note_prefix(name)?;
        let is_root = self.root_at.is_none();
        if is_root {
            self.root_at = Some(self.out.len());
        }
        let mut seen: Vec<&str> = Vec::new();
        loop {
            rest = rest.trim_start();
            for ending in ["/>", ">"] {
                if let Some(behind) = rest.strip_prefix(ending) {
                    self.out += ending;
                    return Some(behind);
                }
            }
            let (name, value, behind) = attribute(rest)?;
            rest = behind;
            if seen.contains(&name) {
                continue;
            }
            if seen.len() >= ATTRIBUTES_MAX {
                return None;
            }
            seen.push(name);
            match name.strip_prefix("xmlns:") {
                Some(prefix) if is_root => {
                    self.declared.insert(prefix.to_owned());
                }
                Some(_) => {}
                None => self.note_prefix(name)?,
            }
            self.out.push(' ');
            self.out += name;
            self.out += "=\"";
            self.push_escaped(value);
            self.out.push('"');
        }
    }

    /// Takes note of a name's prefix; none where there are too many.
    fn note_prefix(&mut self, name: &str) -> Option<()> {
        if let Some((prefix, _)) = name.split_once(':')
            && prefix != "xml"
        {
            self.used.insert(prefix.to_owned());
        }
        (self.used.len() <= PREFIXES_MAX).then_some(())
    }

    /// Text or an attribute's value, without what XML does not allow there.
    fn push_escaped(&mut self, text: &str) {
        for (at, c) in text.char_indices() {
            match c {
                '&' if !is_entity(&text[at..]) => self.out += "&amp;",
                '<' => self.out += "&lt;",
                '"' => self.out += "&quot;",
                '\t' | '\n' | '\r' => self.out.push(c),
                '\u{fffe}' | '\u{ffff}' => self.out.push(' '),
                c if c.is_control() => self.out.push(' '),
                c => self.out.push(c),
            }
        }
    }

    /// Declares on the root what is declared somewhere else only, or nowhere.
    fn finish(mut self) -> Option<String> {
        let missing: String = self
            .used
            .difference(&self.declared)
            .map(|prefix| format!(" xmlns:{prefix}=\"urn:undeclared:{prefix}\""))
            .collect();
        self.out.insert_str(self.root_at?, &missing);
        Some(self.out)
    }
}

/// Nearly what XML calls a name; the parser sees to the rest.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'))
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// An attribute's name and value, and what follows. The value may lack its quotes, or be missing altogether.
fn attribute(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = word(text, |c| c.is_whitespace() || matches!(c, '=' | '/' | '>'));
    if !is_name(name) {
        return None;
    }
    let Some(value) = rest.trim_start().strip_prefix('=') else {
        return Some((name, "", rest));
    };
    let value = value.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        let (value, rest) = value.get(1..)?.split_once(quote)?;
        return Some((name, value, rest));
    }
    let (bare, rest) = word(value, |c| c.is_whitespace() || c == '>');
    // The slash of an empty element is no part of the value.
    match bare.strip_suffix('/') {
        Some(shorter) if rest.starts_with('>') => Some((name, shorter, &value[shorter.len()..])),
        _ => Some((name, bare, rest)),
    }
}

fn word(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// Whether a reference that XML knows without declaration begins here.
fn is_entity(text: &str) -> bool {
    // No further than a name goes: a text may be nothing but ampersands.
    let (name, rest) = word(text.get(1..).unwrap_or_default(), |c| !c.is_ascii_alphanumeric() && c != '#');
    if !rest.starts_with(';') {
        return false;
    }
    match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix('x') {
            Some(hex) => !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit()),
            None => !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()),
        },
        None => matches!(name, "amp" | "lt" | "gt" | "quot" | "apos"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slips_are_mended() {
        fn check(text: &str, mended: Option<&str>) {
            assert_eq!(mend(text).as_deref(), mended, "{text}");
        }
        check("<a b='c'/>", Some("<a b=\"c\"/>"));
        check("<a b=c/>", Some("<a b=\"c\"/>"));
        check("<a b=http://c/d>x</a>", Some("<a b=\"http://c/d\">x</a>"));
        check("<a b = c d>x</a>", Some("<a b=\"c\" d=\"\">x</a>"));
        check("<a b='1' b='2'/>", Some("<a b=\"1\"/>"));
        check("<a><x:b/></a>", Some("<a xmlns:x=\"urn:undeclared:x\"><x:b/></a>"));
        check("<a xmlns:x='y'><x:b/></a>", Some("<a xmlns:x=\"y\"><x:b/></a>"));
        check("<a>&& &#; &#x; &am p; &lt</a>", Some("<a>&amp;&amp; &amp;#; &amp;#x; &amp;am p; &amp;lt</a>"));
        check("<a>B & C &amp; D &#38; E &x;</a>", Some("<a>B &amp; C &amp; D &#38; E &amp;x;</a>"));
        check("<a b='B & C'>1 < 2\u{1}</a>", Some("<a b=\"B &amp; C\">1 &lt; 2 </a>"));
        check("--\n<a/>\n--", Some("<a/>"));
        check("< <<a>", Some("<a>"));
        check("<?xml version='1.0'?><!-- & --><a/>", Some("<?xml version='1.0'?><!-- & --><a/>"));
        check("<a><![CDATA[&]]></a>", Some("<a><![CDATA[&]]></a>"));
        check("<!DOCTYPE a><a/>", None);
        check("<a b='c>", None);
        check("<a =c>", None);
        check("<!-- >", None);
        check("a & b", None);
        check("<x<:>", None);
        check("<x=:>", None);
        check(&(0..=PREFIXES_MAX).map(|n| format!("<p{n}:a>")).collect::<String>(), None);
    }

    proptest! {
        #[test]
        fn anything_goes_in(text in "[<>/a:b= \"'&;#x!\\-\\[\\]?é\u{1}]{0,60}") {
            if let Some(mended) = mend(&text) {
                prop_assert_eq!(mend(&mended), Some(mended));
            }
        }
    }
}
