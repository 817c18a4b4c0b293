//! XML as far as metadata needs it: bounds before parsing, and access by local name.

use roxmltree::{Document, Node, ParsingOptions};

use crate::error::SiprecError;

/// Largest metadata read. Real documents have 1 to 20 KB; conferences with many participants are why it is more.
pub const METADATA_BYTES_MAX: usize = 256 * 1024;

/// Deepest nesting of elements. Real documents reach 6.
pub const DEPTH_MAX: usize = 32;

/// Longest text taken from an element or attribute, in characters: names, numbers and ids are far below.
pub const TEXT_CHARS_MAX: usize = 512;

/// Most elements, texts and comments: what the largest real documents have, ten times over.
const NODES_MAX: u32 = 20_000;

/// Most attributes of an element. Each is compared with all others of its element by the parser.
pub(super) const ATTRIBUTES_MAX: usize = 64;

/// Most namespace declarations. An element that has one takes a copy of all that are in force.
const NAMESPACES_MAX: usize = 256;

/// Parses a document after looking whether its structure is within bounds, since the parser's work grows with their square.
pub(super) fn parse(text: &str) -> Result<Document<'_>, SiprecError> {
    survey(text.as_bytes())?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::DtdDetected => SiprecError::MetadataHasDtd,
        roxmltree::Error::NodesLimitReached => too_complex("more elements", NODES_MAX as usize),
        other => {
            let (line, column) = position(text, &other);
            SiprecError::MetadataMalformed { line, column, what: what_is_wrong(&other) }
        }
    })
}

/// Where the fault is, from 1; the parser does not say it of a document that ends too early.
fn position(text: &str, error: &roxmltree::Error) -> (u32, u32) {
    use roxmltree::Error;
    match error {
        Error::UnclosedRootNode | Error::UnexpectedEndOfStream | Error::NoRootNode => {
            let last = text.rsplit('\n').next().unwrap_or(text);
            let line = text.matches('\n').count() + 1;
            let column = last.chars().count() + 1;
            // The size limit is far below what would not fit.
            (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
        }
        other => (other.pos().row, other.pos().col),
    }
}

fn too_complex(what: &'static str, limit: usize) -> SiprecError {
    SiprecError::MetadataTooComplex { what, limit }
}

/// Our own words for the parser's: its messages quote the document, which may be personal.
fn what_is_wrong(error: &roxmltree::Error) -> &'static str {
    use roxmltree::Error;
    match error {
        Error::UnknownNamespace(..) => "a namespace prefix is not declared",
        Error::DuplicatedNamespace(..) => "a namespace prefix is declared twice",
        Error::UnexpectedCloseTag(..) => "an end tag does not match its start tag",
        Error::UnknownEntityReference(..) | Error::MalformedEntityReference(..) => {
            "an ampersand does not begin a known entity"
        }
        Error::InvalidAttributeValue(..) => "an attribute's value is not valid",
        Error::DuplicatedAttribute(..) => "an attribute is there twice",
        Error::NoRootNode => "there is no element",
        Error::UnclosedRootNode | Error::UnexpectedEndOfStream => "the document ends too early",
        Error::InvalidName(..) => "a name is not valid",
        Error::NonXmlChar(..) => "a character is not allowed in XML",
        _ => "it is not well-formed XML",
    }
}

/// Walks over the tags and refuses what is too deep, or has too many attributes or namespaces. It need not notice what is not
/// well-formed: the parser does.
fn survey(text: &[u8]) -> Result<(), SiprecError> {
    let mut depth: usize = 0;
    let mut namespaces: usize = 0;
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'<') {
        rest = &rest[at..];
        if let Some(ending) = opaque_ending(rest) {
            rest = after(rest, ending);
            continue;
        }
        let tag = &rest[..tag_length(rest)];
        rest = &rest[tag.len()..];
        if tag.starts_with(b"</") {
            depth = depth.saturating_sub(1);
            continue;
        }
        namespaces += occurrences(tag, b"xmlns");
        if namespaces > NAMESPACES_MAX {
            return Err(too_complex("more namespaces", NAMESPACES_MAX));
        }
        if occurrences(tag, b"=") > ATTRIBUTES_MAX {
            return Err(too_complex("more attributes in an element", ATTRIBUTES_MAX));
        }
        // Counted for empty elements too: they are as deep as their neighbours.
        if depth + 1 > DEPTH_MAX {
            return Err(too_complex("deeper nesting", DEPTH_MAX));
        }
        if !tag.ends_with(b"/>") {
            depth += 1;
        }
    }
    Ok(())
}

/// How the thing that begins here ends, when it is none that holds elements.
pub(super) fn opaque_ending(text: &[u8]) -> Option<&'static [u8]> {
    if text.starts_with(b"<!--") {
        Some(b"-->")
    } else if text.starts_with(b"<![CDATA[") {
        Some(b"]]>")
    } else if text.starts_with(b"<?") {
        Some(b"?>")
    } else {
        None
    }
}

fn after<'a>(text: &'a [u8], ending: &[u8]) -> &'a [u8] {
    match text.windows(ending.len()).position(|bytes| bytes == ending) {
        Some(at) => &text[at + ending.len()..],
        None => &[],
    }
}

/// Bytes up to and with the `>` that ends the tag; quoted ones do not.
fn tag_length(tag: &[u8]) -> usize {
    let mut quote = None;
    for (at, &byte) in tag.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    tag.len()
}

fn occurrences(text: &[u8], what: &[u8]) -> usize {
    text.windows(what.len()).filter(|bytes| *bytes == what).count()
}

/// The element's name without its prefix, in lower case: clients write `dataMode` and `datamode`.
pub(super) fn local_name(node: Node<'_, '_>) -> String {
    node.tag_name().name().to_ascii_lowercase()
}

/// The child elements with this local name (in lower case).
pub(super) fn children<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.is_element() && local_name(*child) == name)
}

/// The first child element with this local name.
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

/// The element's own text without surrounding space, when there is any.
pub(super) fn text(node: Node<'_, '_>) -> Option<String> {
    let joined: String = node.children().filter(|child| child.is_text()).filter_map(|child| child.text()).collect();
    filled(&joined)
}

/// The text of the first child element with this local name.
pub(super) fn child_text(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    children(node, name).find_map(text)
}

/// The first of these attributes (local names in lower case) that has a value.
pub(super) fn attribute(node: Node<'_, '_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        node.attributes()
            .filter(|attribute| attribute.name().eq_ignore_ascii_case(name))
            .find_map(|attribute| filled(attribute.value()))
    })
}

/// Trimmed and cut to [`TEXT_CHARS_MAX`]; none where nothing is left.
fn filled(text: &str) -> Option<String> {
    let trimmed = text.trim();
    (!trimmed.is_empty()).then(|| trimmed.chars().take(TEXT_CHARS_MAX).collect())
}
