//! Pages, styles, scripts: in the program itself, compressed once when first asked for, told apart by their content.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    io::Write as _,
    sync::LazyLock,
};

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{HeaderMap, Response, StatusCode};

/// One file.
#[derive(Debug)]
pub struct Asset {
    path: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    gzip: Vec<u8>,
    etag: String,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($path:literal $file:literal $content_type:expr;)*) => {
        /// Path, content type and content of each.
        const FILES: &[(&str, &str, &[u8])] = &[
            $(($path, $content_type, include_bytes!(concat!("../assets/", $file))),)*
        ];
    };
}

files! {
    "/" "index.html" HTML;
    "/app.css" "app.css" CSS;
    "/app.js" "app.js" SCRIPT;
    "/ask.js" "ask.js" SCRIPT;
    "/dom.js" "dom.js" SCRIPT;
    "/words.js" "words.js" SCRIPT;
    "/player.js" "player.js" SCRIPT;
    "/sign-in.js" "sign-in.js" SCRIPT;
    "/library.js" "library.js" SCRIPT;
    "/recording.js" "recording.js" SCRIPT;
    "/calls.js" "calls.js" SCRIPT;
    "/admin.js" "admin.js" SCRIPT;
    "/settings.js" "settings.js" SCRIPT;
    "/capacity.js" "capacity.js" SCRIPT;
    "/audit.js" "audit.js" SCRIPT;
    "/webex.js" "webex.js" SCRIPT;
    "/me.js" "me.js" SCRIPT;
    "/gadgets/CallRecording" "gadget.html" HTML;
    "/gadget.js" "gadget.js" SCRIPT;
    "/messages.json" "messages.json" "application/json";
    "/icon.svg" "icon.svg" "image/svg+xml";
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| FILES.iter().map(Asset::new).collect());

impl Asset {
    fn new(&(path, content_type, plain): &(&'static str, &'static str, &'static [u8])) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Into memory nothing fails; an empty one is not used.
        let gzip = encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        Self { path, content_type, plain, gzip, etag: format!("\"{:016x}\"", hasher.finish()) }
    }
}

/// The file of that path. A browser keeps it and asks whether it is the same still, which costs no body.
pub fn answer(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let asset = ASSETS.iter().find(|asset| asset.path == path)?;
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let builder = Response::builder()
        .header("content-type", asset.content_type)
        .header("cache-control", "no-cache")
        .header("vary", "accept-encoding")
        .header("etag", &asset.etag);
    let answer = if field("if-none-match") == asset.etag {
        builder.status(StatusCode::NOT_MODIFIED).body(Body::empty())
    } else if !asset.gzip.is_empty() && field("accept-encoding").split(',').any(|one| one.trim().starts_with("gzip")) {
        builder.header("content-encoding", "gzip").body(Body::from(Bytes::from_static(asset.gzip.as_slice())))
    } else {
        builder.body(Body::from(Bytes::from_static(asset.plain)))
    };
    answer.ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The languages of the portal, the browser's preference deciding.
    const LANGUAGES: [&str; 5] = ["en", "it", "de", "fr", "es"];

    fn file(path: &str) -> &'static str {
        std::str::from_utf8(FILES.iter().find(|(of, ..)| *of == path).unwrap().2).unwrap()
    }

    fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        FILES
            .iter()
            .filter(|(_, kind, _)| *kind == SCRIPT)
            .map(|(path, _, text)| (*path, std::str::from_utf8(text).unwrap()))
    }

    #[test]
    fn every_message_is_there_in_every_language_with_the_same_places_to_fill() {
        let table: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(file("/messages.json")).unwrap();
        let places = |text: &str| {
            let mut found: Vec<String> =
                text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.to_owned())).collect();
            found.sort();
            found
        };
        for (key, texts) in &table {
            let mut languages: Vec<_> = texts.keys().map(String::as_str).collect();
            languages.sort_unstable();
            let mut expected = LANGUAGES;
            expected.sort_unstable();
            assert_eq!(languages, expected, "{key}");
            for (language, text) in texts {
                assert!(!text.trim().is_empty(), "{key} in {language}");
                assert_eq!(places(text), places(&texts["en"]), "{key} in {language}");
            }
        }
    }

    #[test]
    fn scripts_use_messages_that_there_are_and_no_message_is_unused() {
        let table: BTreeMap<String, serde_json::Value> = serde_json::from_str(file("/messages.json")).unwrap();
        let mut used = std::collections::BTreeSet::new();
        for (path, text) in scripts() {
            for (at, _) in text.match_indices("t('") {
                if at > 0 && text.as_bytes()[at - 1].is_ascii_alphanumeric() {
                    continue;
                }
                let key = text[at + 3..].split('\'').next().unwrap();
                if key.ends_with('.') {
                    used.extend(table.keys().filter(|one| one.starts_with(key)).cloned());
                } else {
                    assert!(table.contains_key(key), "{path} uses {key:?}");
                    used.insert(key.to_owned());
                }
            }
        }
        let unused: Vec<_> = table.keys().filter(|key| !used.contains(*key)).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn nothing_makes_markup_out_of_text_and_nothing_comes_from_elsewhere() {
        for (path, _, text) in FILES {
            let text = std::str::from_utf8(text).unwrap();
            let sinks = [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "DOMParser",
                "javascript:",
            ];
            for sink in sinks {
                assert!(!text.contains(sink), "{path} has {sink}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
            if text.starts_with("<!doctype") {
                assert!(!text.contains("style=") && !text.contains("<style") && !text.contains(" on"), "code inline");
            }
        }
    }

    #[test]
    fn a_browser_that_has_a_file_gets_it_no_second_time() {
        let none = HeaderMap::new();
        let first = answer("/app.js", &none).unwrap();
        assert_eq!(first.status(), 200);
        let mut again = HeaderMap::new();
        again.insert("if-none-match", first.headers()["etag"].clone());
        assert_eq!(answer("/app.js", &again).unwrap().status(), 304);
        let mut zipped = HeaderMap::new();
        zipped.insert("accept-encoding", "br, gzip".parse().unwrap());
        assert_eq!(answer("/app.js", &zipped).unwrap().headers()["content-encoding"], "gzip");
        assert!(answer("/../app.js", &none).is_none());
    }
}
