//! From tokens to the tree. Chains of `&&` and `||` are one node each, as in cel-go, so that error absorption and cost agree.

use crate::CompileError;
use crate::ast::Expr;
use crate::lex::{Token, tokens};
use crate::macros;
use crate::value::Value;
use smol_str::SmolStr;

/// How deep an expression may nest; deeper ones are refused, so that nothing that walks the tree runs out of stack.
const MAX_DEPTH: usize = 200;
/// Words that are no identifiers.
const RESERVED: [&str; 18] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
];

/// Parses a whole expression.
pub(crate) fn parse(text: &str) -> Result<Expr, CompileError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, end: text.len() };
    let expr = parser.expr()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expr),
        Some((token, at)) => Err(CompileError::syntax(*at, format!("unexpected {token:?}"))),
    }
}

pub(crate) struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    end: usize,
}

type Parsed = Result<Expr, CompileError>;

impl Parser {
    fn peek(&self, symbol: &str) -> bool {
        matches!(self.tokens.get(self.at), Some((Token::Symbol(s), _)) if *s == symbol)
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let there = self.peek(symbol);
        self.at += usize::from(there);
        there
    }

    fn position(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(_, at)| *at)
    }

    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, CompileError> {
        Err(CompileError::syntax(self.position(), what))
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.eat(symbol) { Ok(()) } else { self.wrong(format!("expected {symbol:?}")) }
    }

    fn deeper(&mut self) -> Result<(), CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.wrong(format!("the expression nests deeper than {MAX_DEPTH}"))
        } else {
            Ok(())
        }
    }

    fn expr(&mut self) -> Parsed {
        self.deeper()?;
        let condition = self.chain("||")?;
        let expr = if self.eat("?") {
            let yes = self.chain("||")?;
            self.expect(":")?;
            let no = self.expr()?;
            Expr::Conditional(Box::new([condition, yes, no]))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn chain(&mut self, operator: &str) -> Parsed {
        let next = |parser: &mut Self| if operator == "||" { parser.chain("&&") } else { parser.relation() };
        let first = next(self)?;
        if !self.peek(operator) {
            return Ok(first);
        }
        let mut terms = vec![first];
        while self.eat(operator) {
            terms.push(next(self)?);
        }
        Ok(if operator == "||" { Expr::Or(terms) } else { Expr::And(terms) })
    }

    fn relation(&mut self) -> Parsed {
        let depth = self.depth;
        let mut left = self.sum()?;
        loop {
            let known = [("==", "_==_"), ("!=", "_!=_"), ("<=", "_<=_"), (">=", "_>=_"), ("<", "_<_"), (">", "_>_")];
            let operator = known.into_iter().find(|(symbol, _)| self.eat(symbol)).map(|(_, name)| name);
            let operator = operator.or_else(|| self.eat_word("in").then_some("@in"));
            let Some(operator) = operator else { break };
            self.deeper()?;
            let right = self.sum()?;
            left = Expr::call(operator, vec![left, right]);
        }
        self.depth = depth;
        Ok(left)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let there = matches!(self.tokens.get(self.at), Some((Token::Ident(name), _)) if name == word);
        self.at += usize::from(there);
        there
    }

    fn sum(&mut self) -> Parsed {
        self.left(&[("+", "_+_"), ("-", "_-_")], Self::product)
    }

    fn product(&mut self) -> Parsed {
        self.left(&[("*", "_*_"), ("/", "_/_"), ("%", "_%_")], Self::unary)
    }

    fn left(&mut self, operators: &[(&str, &str)], operand: fn(&mut Self) -> Parsed) -> Parsed {
        let depth = self.depth;
        let mut left = operand(self)?;
        while let Some((_, name)) = operators.iter().find(|(symbol, _)| self.eat(symbol)) {
            self.deeper()?;
            left = Expr::call(name, vec![left, operand(self)?]);
        }
        self.depth = depth;
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        if let Some(literal) = self.negative()? {
            return self.member(literal);
        }
        for (symbol, name) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0;
            while self.eat(symbol) {
                count += 1;
            }
            if count > 0 {
                let primary = self.primary()?;
                let operand = self.member(primary)?;
                // Two of a kind cancel each other.
                return Ok(if count % 2 == 0 { operand } else { Expr::call(name, vec![operand]) });
            }
        }
        let primary = self.primary()?;
        self.member(primary)
    }

    /// A number with its sign: the smallest integer has no positive twin.
    fn negative(&mut self) -> Result<Option<Expr>, CompileError> {
        if !self.peek("-") {
            return Ok(None);
        }
        let value = match self.tokens.get(self.at + 1) {
            Some((Token::Int(value), _)) => match 0i128 - i128::from(*value) {
                v if v >= i128::from(i64::MIN) => Value::Int(i64::try_from(v).unwrap_or(i64::MIN)),
                _ => return self.wrong("number does not fit into 64 bits"),
            },
            Some((Token::Double(value), _)) => Value::Double(-value),
            _ => return Ok(None),
        };
        self.at += 2;
        Ok(Some(Expr::Literal(value)))
    }

    fn member(&mut self, mut expr: Expr) -> Parsed {
        let depth = self.depth;
        loop {
            if self.eat(".") {
                self.deeper()?;
                let optional = self.eat("?");
                let (name, quoted) = self.field()?;
                expr = if optional {
                    Expr::OptSelect(Box::new(expr), name)
                } else if !quoted && self.eat("(") {
                    let args = self.list(")", Self::expr)?;
                    macros::method(&name, expr, args).map_err(|what| CompileError::syntax(self.position(), what))?
                } else {
                    Expr::Select(Box::new(expr), name)
                };
            } else if self.eat("[") {
                self.deeper()?;
                let name = if self.eat("?") { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                expr = Expr::call(name, vec![expr, index]);
            } else {
                self.depth = depth;
                return Ok(expr);
            }
        }
    }

    fn field(&mut self) -> Result<(SmolStr, bool), CompileError> {
        let (name, quoted) = match self.tokens.get(self.at) {
            Some((Token::Ident(name), _)) if name != "in" && name != "true" && name != "false" && name != "null" => {
                (name, false)
            }
            Some((Token::Quoted(name), _)) => (name, true),
            _ => return self.wrong("expected the name of a field"),
        };
        let field = (name.clone(), quoted);
        self.at += 1;
        Ok(field)
    }

    /// Items up to the closing symbol.
    fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, CompileError>,
    ) -> Result<Vec<T>, CompileError> {
        let mut items = Vec::new();
        while !self.eat(close) {
            if !items.is_empty() {
                self.expect(",")?;
                if close != ")" && self.eat(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn primary(&mut self) -> Parsed {
        if self.eat("(") {
            let expr = self.expr()?;
            self.expect(")")?;
            return Ok(expr);
        }
        if self.eat("[") {
            let element = |p: &mut Self| {
                let optional = p.eat("?");
                Ok((p.expr()?, optional))
            };
            return Ok(Expr::List(self.list("]", element)?));
        }
        if self.eat("{") {
            let entry = |p: &mut Self| {
                let optional = p.eat("?");
                let key = p.expr()?;
                p.expect(":")?;
                Ok((key, p.expr()?, optional))
            };
            return Ok(Expr::Map(self.list("}", entry)?));
        }
        // A leading dot looks the name up from the root, and there is nothing else here.
        self.eat(".");
        let Some((token, _)) = self.tokens.get(self.at).cloned() else {
            return self.wrong("the expression ends too early");
        };
        let literal = match token {
            Token::Ident(name) => return self.named(&name),
            Token::Int(value) => match i64::try_from(value) {
                Ok(value) => Value::Int(value),
                Err(_) => return self.wrong("number does not fit into 64 bits"),
            },
            Token::Uint(value) => Value::Uint(value),
            Token::Double(value) => Value::Double(value),
            Token::String(value) => Value::String(value),
            Token::Bytes(value) => Value::Bytes(value.into()),
            Token::Quoted(_) | Token::Symbol(_) => return self.wrong(format!("unexpected {token:?}")),
        };
        self.at += 1;
        Ok(Expr::Literal(literal))
    }

    fn named(&mut self, name: &str) -> Parsed {
        let literal = match name {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            _ => None,
        };
        if let Some(literal) = literal {
            self.at += 1;
            return Ok(Expr::Literal(literal));
        }
        if RESERVED.contains(&name) {
            return self.wrong(format!("{name} is a reserved word"));
        }
        self.at += 1;
        if !self.eat("(") {
            return Ok(Expr::ident(name));
        }
        let args = self.list(")", Self::expr)?;
        macros::function(name, args).map_err(|what| CompileError::syntax(self.position(), what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_bind_as_in_the_grammar() {
        let same = |a: &str, b: &str| assert_eq!(parse(a).unwrap(), parse(b).unwrap(), "{a} / {b}");
        same("1 + 2 * 3 - 4", "(1 + (2 * 3)) - 4");
        same("a < b == c", "(a < b) == c");
        same("a ? b : c ? d : e", "a ? b : (c ? d : e)");
        same("!a.b && c", "(!(a.b)) && c");
        same("!!a", "a");
        same("--a", "a");
        same("a.b[1].?c", "((a.b)[1]).?c");
        same("[1, 2,]", "[1, 2]");
        same(".a", "a");
        assert_eq!(parse("-9223372036854775808").unwrap(), Expr::int(i64::MIN));
    }

    #[test]
    fn what_the_grammar_does_not_allow_is_an_error() {
        for text in [
            "",
            "a b",
            "a.",
            "f(1,)",
            "1 +",
            "(a",
            "[a",
            "{a}",
            "a ? b",
            "for",
            "a.true",
            "9223372036854775808",
            "a..b",
            "a.`b`(1)",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_expression_that_nests_too_deep_is_refused() {
        for text in [
            format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000)),
            vec!["1"; 5000].join("+"),
            format!("a{}", ".b".repeat(5000)),
            format!("{}a", "a?a:".repeat(2000)),
        ] {
            assert!(parse(&text).is_err_and(|e| e.to_string().contains("deeper")), "{}", &text[..20]);
        }
        assert!(parse(&vec!["a"; 2000].join(" && ")).is_ok());
    }
}
