//! List, router and document against each other. The router is asked, not read: its answers say which methods and parameters it takes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{OPENAPI, PATHS};
use crate::{
    ApiError, ErrorKind,
    route::{Call, Open, route},
};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// A path, a method and what the document says of them.
struct Operation {
    name: String,
    method: String,
    target: String,
    described: Value,
}

/// The text of an example in a query.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An allowed value of a parameter.
fn example(parameter: &Value) -> String {
    let one = parameter.get("example").or_else(|| parameter["schema"]["enum"].get(0));
    text(one.unwrap_or_else(|| panic!("no example of {parameter}")))
}

fn operations() -> Vec<Operation> {
    let document = document();
    let mut found = Vec::new();
    for (path, described) in document["paths"].as_object().unwrap() {
        let mut target = path.clone();
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            let part = format!("{{{}}}", parameter["name"].as_str().unwrap());
            assert!(target.contains(&part) && parameter["in"] == "path", "{path}: {parameter}");
            target = target.replace(&part, &example(parameter));
        }
        assert!(!target.contains('{'), "{path} has a part that is not described");
        for (method, described) in described.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let method = method.to_uppercase();
            let name = format!("{method} {path}");
            found.push(Operation { name, method, target: target.clone(), described: described.clone() });
        }
    }
    found
}

impl Operation {
    fn parameters(&self) -> Vec<&Value> {
        self.described["parameters"].as_array().into_iter().flatten().collect()
    }

    /// The query that has what must be there.
    fn needed(&self) -> String {
        let needed = self.parameters().into_iter().filter(|parameter| parameter["required"] == true);
        needed.map(|parameter| format!("{}={}&", parameter["name"].as_str().unwrap(), example(parameter))).collect()
    }

    fn content(&self) -> Option<&Value> {
        self.described.get("requestBody").map(|body| &body["content"]["application/json"])
    }

    fn body(&self) -> Vec<u8> {
        self.content().map_or_else(Vec::new, |content| content["example"].to_string().into_bytes())
    }

    fn ask(&self, query: &str, body: &[u8]) -> Result<Call, ApiError> {
        route(&self.method, &format!("{}?{query}", self.target), body)
    }
}

/// The operations under `/v1/`.
fn routed() -> impl Iterator<Item = Operation> {
    operations().into_iter().filter(|operation| operation.target.starts_with("/v1/"))
}

#[test]
fn the_document_has_the_paths_that_there_are_and_no_others() {
    let document = document();
    let paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let (ours, open): (Vec<&str>, Vec<&str>) = paths.into_iter().partition(|path| path.starts_with("/v1/"));
    let known: BTreeSet<String> = PATHS.iter().map(|path| format!("/v1/{path}")).collect();
    assert_eq!(ours.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), known);
    assert_eq!(known.len(), PATHS.len(), "a path is there twice");
    assert_eq!(open.len(), 3);
    assert!(open.iter().all(|path| Open::of(path).is_some()));
}

#[test]
fn each_path_takes_the_methods_that_the_document_has() {
    for operation in routed() {
        let error = route("NONE", &operation.target, b"").unwrap_err();
        assert_eq!(error.kind, ErrorKind::MethodNotAllowed, "{}", operation.target);
        let allowed: BTreeSet<&str> = error.allow.split(", ").collect();
        let all = operations();
        let described = all.iter().filter(|other| other.target == operation.target);
        assert_eq!(
            described.map(|other| other.method.as_str()).collect::<BTreeSet<_>>(),
            allowed,
            "{}",
            operation.name
        );
    }
}

#[test]
fn examples_are_understood_each_as_something_else() {
    let mut calls: Vec<Call> = Vec::new();
    for operation in routed() {
        let call = operation.ask(&operation.needed(), &operation.body());
        let call = call.unwrap_or_else(|error| panic!("{}: {error}", operation.name));
        assert!(!calls.contains(&call), "{} is the same as another", operation.name);
        calls.push(call);
    }
}

#[test]
fn parameters_in_the_document_are_those_that_are_read() {
    for operation in routed() {
        let error = operation.ask(&format!("{}zz=1", operation.needed()), &operation.body()).unwrap_err();
        let (_, allowed) =
            error.message.split_once("allowed: ").unwrap_or_else(|| panic!("{}: {error}", operation.name));
        let allowed: BTreeSet<&str> = allowed.trim_start_matches("one of ").split(", ").collect();
        let mut described: BTreeSet<&str> =
            operation.parameters().into_iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        if described.is_empty() {
            described.insert("none is");
        }
        assert_eq!(described, allowed, "{}", operation.name);
    }
}

/// That this value of a parameter is understood, or is not.
fn check_value(operation: &Operation, parameter: &Value, value: &str, is_good: bool) {
    let name = parameter["name"].as_str().unwrap();
    let mut others = operation.needed();
    if let Some(at) = others.find(&format!("{name}=")) {
        let end = others[at..].find('&').unwrap();
        others.replace_range(at..=at + end, "");
    }
    let found = operation.ask(&format!("{others}{name}={value}"), &operation.body());
    assert_eq!(found.is_ok(), is_good, "{}: {name}={value}: {found:?}", operation.name);
}

#[test]
fn values_of_parameters_are_those_of_the_document() {
    for operation in routed() {
        for parameter in operation.parameters() {
            let schema = &parameter["schema"];
            check_value(&operation, parameter, &example(parameter), true);
            for word in schema["enum"].as_array().into_iter().flatten() {
                check_value(&operation, parameter, &text(word), true);
            }
            if schema.get("enum").is_some() || schema["type"] == "integer" || schema.get("format").is_some() {
                check_value(&operation, parameter, "nonsense", false);
            }
            if let Some(most) = schema["maximum"].as_u64() {
                check_value(&operation, parameter, &most.to_string(), true);
                check_value(&operation, parameter, &(most + 1).to_string(), false);
            }
        }
        for parameter in operation.parameters().into_iter().filter(|parameter| parameter["required"] == true) {
            let name = parameter["name"].as_str().unwrap();
            let error = operation.ask("", &operation.body()).unwrap_err();
            assert!(error.message.contains(name), "{}: {error}", operation.name);
        }
    }
}

#[test]
fn bodies_have_the_fields_of_the_document() {
    for operation in routed() {
        let Some(content) = operation.content() else { continue };
        let (schema, whole) = (&content["schema"], content["example"].as_object().unwrap());
        let check = |body: &Map<String, Value>, is_good: bool| {
            let body = Value::Object(body.clone()).to_string();
            let found = operation.ask(&operation.needed(), body.as_bytes());
            assert_eq!(found.is_ok(), is_good, "{}: {body}: {found:?}", operation.name);
        };
        let Some(fields) = schema["properties"].as_object() else { continue };
        assert_eq!(fields.keys().collect::<BTreeSet<_>>(), whole.keys().collect(), "{}: the example", operation.name);
        let required: Vec<&str> =
            schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        for name in fields.keys() {
            let mut without = whole.clone();
            without.remove(name);
            check(&without, !required.contains(&name.as_str()));
        }
        let mut more = whole.clone();
        more.insert("zz".into(), json!(1));
        check(&more, schema["additionalProperties"] != false);
    }
}

#[test]
fn references_and_names_are_whole() {
    let document = document();
    let mut names = BTreeSet::new();
    for operation in operations() {
        let name = operation.described["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name), "{}: its name is there twice", operation.name);
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut used = BTreeSet::new();
    let mut stack = vec![&document];
    while let Some(value) = stack.pop() {
        if let Some(name) = value.get("$ref").and_then(Value::as_str) {
            used.insert(name.strip_prefix("#/components/schemas/").unwrap().to_owned());
        }
        stack.extend(value.as_array().into_iter().flatten());
        stack.extend(value.as_object().into_iter().flat_map(Map::values));
    }
    assert_eq!(used, schemas.keys().cloned().collect());
}
