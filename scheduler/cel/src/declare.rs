//! The functions that expressions can call: their signatures, as the checker needs them.
//!
//! One line each: `[receiver .]name(arguments): result`; capital letters are type variables. A function that Kubernetes
//! has and that is not here (durations, timestamps, URLs, IP addresses, formats, authorization) is refused by name.

use crate::types::Type;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Functions of Kubernetes' environment that are not evaluated here.
pub(crate) const UNSUPPORTED: [&str; 52] = [
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "url",
    "isURL",
    "getScheme",
    "getHost",
    "getHostname",
    "getPort",
    "getEscapedPath",
    "getQuery",
    "ip",
    "isIP",
    "ip.isCanonical",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "cidr",
    "isCIDR",
    "containsIP",
    "containsCIDR",
    "masked",
    "prefixLength",
    "format",
    "format.named",
    "validate",
    "path",
    "group",
    "serviceAccount",
    "resource",
    "subresource",
    "namespace",
    "name",
    "check",
    "allowed",
    "reason",
    "errored",
    "error",
    "fieldSelector",
    "labelSelector",
];

const DECLARATIONS: &str = "
!_(bool): bool
@not_strictly_false(bool): bool
_==_(A, A): bool
_!=_(A, A): bool
_+_(bytes, bytes): bytes
_+_(double, double): double
_+_(int, int): int
_+_(list(A), list(A)): list(A)
_+_(string, string): string
_+_(uint, uint): uint
_-_(double, double): double
_-_(int, int): int
_-_(uint, uint): uint
_*_(double, double): double
_*_(int, int): int
_*_(uint, uint): uint
_/_(double, double): double
_/_(int, int): int
_/_(uint, uint): uint
_%_(int, int): int
_%_(uint, uint): uint
-_(double): double
-_(int): int
_[_](list(A), int): A
_[_](map(A, B), A): B
_[_](optional(list(A)), int): optional(A)
_[_](optional(map(A, B)), A): optional(B)
_[?_](list(A), int): optional(A)
_[?_](optional(list(A)), int): optional(A)
_[?_](map(A, B), A): optional(B)
_[?_](optional(map(A, B)), A): optional(B)
@in(A, list(A)): bool
@in(A, map(A, B)): bool
size(bytes): int
size(list(A)): int
size(map(A, B)): int
size(string): int
bytes .size(): int
list(A) .size(): int
map(A, B) .size(): int
string .size(): int
type(A): type(A)
dyn(A): dyn
bool(bool): bool
bool(string): bool
bytes(bytes): bytes
bytes(string): bytes
double(double): double
double(int): double
double(string): double
double(uint): double
int(int): int
int(double): int
int(string): int
int(uint): int
uint(uint): uint
uint(double): uint
uint(int): uint
uint(string): uint
string(string): string
string(bool): string
string(bytes): string
string(double): string
string(int): string
string(uint): string
string .contains(string): bool
string .endsWith(string): bool
string .startsWith(string): bool
matches(string, string): bool
string .matches(string): bool
string .find(string): string
string .findAll(string): list(string)
string .findAll(string, int): list(string)
string .charAt(int): string
string .indexOf(string): int
string .indexOf(string, int): int
string .lastIndexOf(string): int
string .lastIndexOf(string, int): int
string .lowerAscii(): string
string .upperAscii(): string
string .replace(string, string): string
string .replace(string, string, int): string
string .split(string): list(string)
string .split(string, int): list(string)
string .substring(int): string
string .substring(int, int): string
string .trim(): string
list(string) .join(): string
list(string) .join(string): string
strings.quote(string): string
list(A) .indexOf(A): int
list(A) .lastIndexOf(A): int
dyn .includes(dyn): bool
list(int) .sum(): int
list(uint) .sum(): uint
list(double) .sum(): double
list(A) .slice(int, int): list(A)
list(list(A)) .flatten(): list(A)
list(dyn) .flatten(int): list(dyn)
list(A) .reverse(): list(A)
list(A) .distinct(): list(A)
lists.range(int): list(int)
list(A) .first(): optional(A)
list(A) .last(): optional(A)
sets.contains(list(A), list(A)): bool
sets.equivalent(list(A), list(A)): bool
sets.intersects(list(A), list(A)): bool
cel.@mapInsert(map(A, B), A, B): map(A, B)
cel.@mapInsert(map(A, B), map(A, B)): map(A, B)
optional.of(A): optional(A)
optional.ofNonZeroValue(A): optional(A)
optional.none(): optional(A)
optional.unwrap(list(optional(A))): list(A)
list(optional(A)) .unwrapOpt(): list(A)
optional(A) .value(): A
optional(A) .hasValue(): bool
optional(A) .or(optional(A)): optional(A)
optional(A) .orValue(A): A
quantity(string): quantity
isQuantity(string): bool
sign(quantity): int
quantity .isGreaterThan(quantity): bool
quantity .isLessThan(quantity): bool
quantity .compareTo(quantity): int
quantity .asApproximateFloat(): double
quantity .asInteger(): int
quantity .isInteger(): bool
quantity .add(quantity): quantity
quantity .add(int): quantity
quantity .sub(quantity): quantity
quantity .sub(int): quantity
semver(string): semver
semver(string, bool): semver
isSemver(string): bool
isSemver(string, bool): bool
semver .isGreaterThan(semver): bool
semver .isLessThan(semver): bool
semver .compareTo(semver): int
semver .major(): int
semver .minor(): int
semver .patch(): int
";

/// Types that lists can be sorted by, and compared.
const COMPARABLE: [&str; 6] = ["int", "uint", "double", "bool", "string", "bytes"];

/// One signature.
#[derive(Clone, Debug)]
pub(crate) struct Overload {
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// Type variables.
    pub(crate) params: usize,
}

/// The signatures of each function, in the order in which they are tried.
pub(crate) static FUNCTIONS: LazyLock<BTreeMap<SmolStr, Vec<Overload>>> = LazyLock::new(|| {
    let mut all: BTreeMap<SmolStr, Vec<Overload>> = BTreeMap::new();
    let written = DECLARATIONS.lines().map(str::to_owned).chain(orders()).chain(sorts());
    for (name, overload) in written.filter_map(|line| declaration(&line)) {
        all.entry(name).or_default().push(overload);
    }
    all
});

/// `<`, `<=`, `>` and `>=`: within a type, and across those of numbers.
fn orders() -> impl Iterator<Item = String> {
    const PAIRS: [(&str, &str); 12] = [
        ("bool", "bool"),
        ("int", "int"),
        ("int", "double"),
        ("int", "uint"),
        ("uint", "uint"),
        ("uint", "double"),
        ("uint", "int"),
        ("double", "double"),
        ("double", "int"),
        ("double", "uint"),
        ("string", "string"),
        ("bytes", "bytes"),
    ];
    ["_<_", "_<=_", "_>_", "_>=_"].into_iter().flat_map(|name| PAIRS.map(|(a, b)| format!("{name}({a}, {b}): bool")))
}

fn sorts() -> impl Iterator<Item = String> {
    COMPARABLE.into_iter().flat_map(|t| {
        [
            format!("list({t}) .isSorted(): bool"),
            format!("list({t}) .max(): {t}"),
            format!("list({t}) .min(): {t}"),
            format!("list({t}) .sort(): list({t})"),
            format!("list(A) .@sortByAssociatedKeys(list({t})): list(A)"),
        ]
    })
}

fn declaration(line: &str) -> Option<(SmolStr, Overload)> {
    let (head, result) = line.rsplit_once("): ")?;
    let (receiver, call) = match head.split_once(" .") {
        Some((receiver, call)) => (Some(receiver), call),
        None => (None, head),
    };
    let (name, args) = call.split_once('(')?;
    let mut params = Vec::new();
    let mut types: Vec<Type> = receiver.into_iter().map(|text| parse(text, &mut params)).collect();
    types.extend(split(args).into_iter().map(|text| parse(text, &mut params)));
    let result = parse(result, &mut params);
    Some((name.into(), Overload { member: receiver.is_some(), args: types, result, params: params.len() }))
}

/// Splits at the commas that are in no bracket.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn parse<'a>(text: &'a str, params: &mut Vec<&'a str>) -> Type {
    if let Some((name, rest)) = text.split_once('(') {
        let mut parts: Vec<Type> =
            split(rest.strip_suffix(')').unwrap_or(rest)).into_iter().map(|part| parse(part, params)).collect();
        let last = parts.pop().unwrap_or(Type::Dyn);
        return match (name, parts.pop()) {
            ("map", Some(key)) => Type::map(key, last),
            ("optional", _) => Type::optional(last),
            ("type", _) => Type::Kind(Box::new(last)),
            _ => Type::list(last),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "quantity" => Type::Quantity,
        "semver" => Type::Semver,
        name if name.len() == 1 => {
            let at = params.iter().position(|known| *known == name).unwrap_or_else(|| {
                params.push(name);
                params.len() - 1
            });
            Type::Param(at)
        }
        name => Type::named(name).map_or(Type::Error, |(of, _)| of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declaration_is_understood() {
        let lines = DECLARATIONS.lines().filter(|line| !line.is_empty()).count();
        let declared: usize = FUNCTIONS.values().map(Vec::len).sum();
        assert_eq!(declared, lines + 4 * 12 + 6 * 5);
        for (name, overload) in FUNCTIONS.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
            assert!(!overload.args.contains(&Type::Error) && overload.result != Type::Error, "{name}: {overload:?}");
        }
    }

    #[test]
    fn signatures_nest() {
        let index = &FUNCTIONS["_[_]"][3];
        assert_eq!(index.args, [Type::optional(Type::map(Type::Param(0), Type::Param(1))), Type::Param(0)]);
        assert_eq!((index.params, index.member), (2, false));
        assert!(UNSUPPORTED.iter().all(|name| !FUNCTIONS.contains_key(*name)));
    }
}
