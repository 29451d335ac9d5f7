//! What a template's source becomes before minijinja compiles it.
//!
//! minijinja's operators cannot be given other meanings, so the places where they differ from Python are found in its own
//! syntax tree and written as calls of functions: `a % b` as `__percent(a, b)`, `a ~ b` as `__concat(a, b)`, a method
//! that is not called (`x.items`) as `__method(x, 'items')`, and what can grow (`+` and `*`) inside `__bounded(…)`.

use minijinja::{
    Error,
    machinery::{Token, ast, parse, tokenize},
    syntax::SyntaxConfig,
};

use super::{collections, python::error, strings};

/// A change of the source: what is taken out at an offset, and what is put there.
struct Edit {
    at: usize,
    taken: usize,
    put: String,
}

/// The source as it is compiled.
///
/// # Errors
/// When it is no template.
pub fn prepare(source: &str, syntax: &SyntaxConfig) -> Result<String, Error> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = with_edits(&source, tokens(&source, syntax)?);
    let tree = parse(&source, "chat", syntax.clone())?;
    let mut walk = Walk { source: &source, edits: Vec::new(), read: Vec::new(), failed: None };
    walk.statement(&tree);
    match walk.failed {
        Some(failed) => Err(failed),
        None => Ok(with_edits(&source, walk.edits)),
    }
}

fn with_edits(source: &str, mut edits: Vec<Edit>) -> String {
    // stable: of what is put in one place, what was found first comes first
    edits.sort_by_key(|edit| (edit.at, edit.taken));
    let mut out = String::with_capacity(source.len() + edits.len() * 16);
    let mut done = 0;
    for edit in edits {
        out.push_str(&source[done..edit.at]);
        out.push_str(&edit.put);
        done = edit.at + edit.taken;
    }
    out + &source[done..]
}

/// `{% generation %}` marks what an assistant said and changes nothing in the text: it becomes a block with a scope.
/// `+n` is `n`. `\U0001F600` in a string is a character of its own.
fn tokens(source: &str, syntax: &SyntaxConfig) -> Result<Vec<Edit>, Error> {
    let mut edits = Vec::new();
    let (mut starts, mut ends_operand) = (false, false);
    // What cannot be read is for the parser to report.
    for (token, span) in tokenize(source, false, syntax.clone()).map_while(Result::ok) {
        let (at, end) = (span.start_offset as usize, span.end_offset as usize);
        let mut replace = |put: &str| edits.push(Edit { at, taken: end - at, put: put.to_owned() });
        match token {
            Token::Ident("generation") if starts => replace("with"),
            Token::Ident("endgeneration") if starts => replace("endwith"),
            Token::Plus if !ends_operand => replace(" "),
            Token::Str(_) | Token::String(_) => long_escapes(&source[at..end], at, &mut edits)?,
            _ => {}
        }
        starts = matches!(token, Token::BlockStart);
        ends_operand = match token {
            Token::Ident(word) => !["and", "else", "elif", "if", "in", "is", "not", "or"].contains(&word),
            Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => true,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => true,
            _ => false,
        };
    }
    Ok(edits)
}

fn long_escapes(literal: &str, offset: usize, edits: &mut Vec<Edit>) -> Result<(), Error> {
    let mut at = 0;
    while let Some(found) = literal[at..].find('\\') {
        at += found;
        if literal[at..].starts_with("\\N{") {
            return Err(error("characters by their names (`\\N{…}`) are not supported in strings"));
        }
        let code = literal[at..].strip_prefix("\\U").and_then(|rest| rest.get(..8));
        match code.and_then(|hex| u32::from_str_radix(hex, 16).ok()).filter(|c| *c > 0xffff).and_then(char::from_u32) {
            Some(c) => {
                edits.push(Edit { at: offset + at, taken: 10, put: c.to_string() });
                at += 10;
            }
            None => at += 1 + literal[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    Ok(())
}

struct Walk<'s> {
    source: &'s str,
    edits: Vec<Edit>,
    /// The variables that were read.
    read: Vec<String>,
    failed: Option<Error>,
}

impl Walk<'_> {
    fn insert(&mut self, at: usize, put: &str) {
        self.edits.push(Edit { at, taken: 0, put: put.to_owned() });
    }

    /// Where the operator behind an operand is: only white space and closing parentheses come before it.
    fn operator(&self, left: &ast::Expr<'_>, operator: char) -> Option<usize> {
        let end = left.span().end_offset as usize;
        let behind = &self.source[end..];
        let at = behind.find(|c: char| !c.is_whitespace() && c != ')')?;
        behind[at..].starts_with(operator).then_some(end + at)
    }

    fn statements(&mut self, statements: &[ast::Stmt<'_>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) {
        use ast::Stmt;
        match statement {
            Stmt::Template(s) => self.statements(&s.children),
            Stmt::EmitExpr(s) => self.expression(&s.expr),
            Stmt::ForLoop(s) => {
                self.expression(&s.iter);
                s.filter_expr.iter().for_each(|e| self.expression(e));
                self.statements(&s.body);
                self.statements(&s.else_body);
            }
            Stmt::IfCond(s) => {
                self.expression(&s.expr);
                self.statements(&s.true_body);
                self.statements(&s.false_body);
            }
            Stmt::WithBlock(s) => {
                let (names, values): (Vec<_>, Vec<_>) = s.assignments.iter().map(|(name, value)| (name, value)).unzip();
                self.independent(names.into_iter(), values.into_iter(), "a value of `with`");
                self.statements(&s.body);
            }
            Stmt::Set(s) => {
                self.target(&s.target);
                self.expression(&s.expr);
            }
            Stmt::SetBlock(s) => {
                self.target(&s.target);
                s.filter.iter().for_each(|e| self.expression(e));
                self.statements(&s.body);
            }
            Stmt::AutoEscape(s) => {
                self.expression(&s.enabled);
                self.statements(&s.body);
            }
            Stmt::FilterBlock(s) => {
                self.expression(&s.filter);
                self.statements(&s.body);
            }
            Stmt::Block(s) => self.statements(&s.body),
            Stmt::Macro(s) => self.macro_(s),
            Stmt::CallBlock(s) => {
                self.call(&s.call);
                self.macro_(&s.macro_decl);
            }
            Stmt::Do(s) => self.call(&s.call),
            Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
                self.failed = Some(error("a chat template is one file: it cannot include or import others"));
            }
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
        }
    }

    fn macro_(&mut self, declared: &ast::Macro<'_>) {
        self.independent(declared.args.iter(), declared.defaults.iter(), "a default of a macro's argument");
        self.statements(&declared.body);
    }

    /// Jinja evaluates the values of `with` outside of it, and the defaults of a macro after the arguments before each;
    /// minijinja does neither, so none may read another's name.
    fn independent<'e, 'a: 'e>(
        &mut self,
        names: impl Iterator<Item = &'e ast::Expr<'a>>,
        values: impl Iterator<Item = &'e ast::Expr<'a>>,
        what: &str,
    ) {
        let names: Vec<&str> =
            names.filter_map(|name| if let ast::Expr::Var(name) = name { Some(name.id) } else { None }).collect();
        let before = self.read.len();
        values.for_each(|value| self.expression(value));
        if let Some(name) = self.read[before..].iter().find(|read| names.contains(&read.as_str())) {
            self.failed = Some(error(format!("{what} reads `{name}` of the same list, which is not supported")));
        }
    }

    fn target(&mut self, target: &ast::Expr<'_>) {
        if let ast::Expr::GetAttr(attribute) = target
            && attribute.name.starts_with('_')
        {
            self.failed = Some(error("a namespace has no attributes whose names begin with an underscore"));
        }
    }

    fn call(&mut self, call: &ast::Call<'_>) {
        match &call.expr {
            ast::Expr::GetAttr(method) => self.expression(&method.expr),
            called => self.expression(called),
        }
        self.arguments(&call.args);
    }

    fn arguments(&mut self, args: &[ast::CallArg<'_>]) {
        use ast::CallArg;
        for arg in args {
            match arg {
                CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e) => {
                    self.expression(e);
                }
            }
        }
    }

    fn expression(&mut self, expression: &ast::Expr<'_>) {
        use ast::Expr;
        match expression {
            Expr::Var(e) => self.read.push(e.id.to_owned()),
            Expr::Const(_) => {}
            Expr::Slice(e) => {
                self.expression(&e.expr);
                [&e.start, &e.stop, &e.step].into_iter().flatten().for_each(|e| self.expression(e));
            }
            Expr::UnaryOp(e) => self.expression(&e.expr),
            Expr::BinOp(e) => self.operation(e),
            Expr::Compare(e) => {
                self.expression(&e.expr);
                e.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(e) => {
                self.expression(&e.test_expr);
                self.expression(&e.true_expr);
                e.false_expr.iter().for_each(|e| self.expression(e));
            }
            Expr::Filter(e) => {
                e.expr.iter().for_each(|e| self.expression(e));
                self.arguments(&e.args);
            }
            Expr::Test(e) => {
                self.expression(&e.expr);
                self.arguments(&e.args);
            }
            Expr::GetAttr(e) => self.attribute(e),
            Expr::GetItem(e) => {
                self.expression(&e.expr);
                self.expression(&e.subscript_expr);
            }
            Expr::Call(e) => self.call(e),
            Expr::List(e) => e.items.iter().for_each(|e| self.expression(e)),
            Expr::Tuple(e) => e.items.iter().for_each(|e| self.expression(e)),
            Expr::Map(e) => e.keys.iter().chain(&e.values).for_each(|e| self.expression(e)),
        }
    }

    fn attribute(&mut self, attribute: &ast::Spanned<ast::GetAttr<'_>>) {
        let (start, end) = (attribute.span().start_offset as usize, attribute.span().end_offset as usize);
        if is_method(attribute.name)
            && let Some(dot) = self.operator(&attribute.expr, '.')
        {
            self.insert(start, "__method(");
            self.edits.push(Edit { at: dot, taken: end - dot, put: format!(", '{}')", attribute.name) });
        }
        self.expression(&attribute.expr);
    }

    fn operation(&mut self, operation: &ast::Spanned<ast::BinOp<'_>>) {
        use ast::BinOpKind::{Add, Concat, Mul, Rem};
        match operation.op {
            Rem => self.as_call(operation, "__percent(", '%'),
            Concat => self.as_call(operation, "__concat(", '~'),
            Add | Mul => {
                let (start, end) = (operation.span().start_offset as usize, operation.span().end_offset as usize);
                self.insert(start, "__bounded(");
                self.chain(operation);
                self.insert(end, ")");
            }
            _ => {
                self.expression(&operation.left);
                self.expression(&operation.right);
            }
        }
    }

    /// The operands of `a + b + …`; the whole is bounded already.
    fn chain(&mut self, operation: &ast::Spanned<ast::BinOp<'_>>) {
        use ast::BinOpKind::{Add, Mul, Sub};
        match &operation.left {
            ast::Expr::BinOp(left) if matches!(left.op, Add | Sub | Mul) => self.chain(left),
            left => self.expression(left),
        }
        self.expression(&operation.right);
    }

    /// Writes `a ~ b ~ …` as a call with all its operands, and `a % b` as one with two.
    fn as_call(&mut self, operation: &ast::Spanned<ast::BinOp<'_>>, function: &str, sign: char) {
        let start = operation.span().start_offset;
        let mut operands = vec![&operation.right];
        let mut places = vec![self.operator(&operation.left, sign)];
        let mut first = &operation.left;
        while sign == '~'
            && let ast::Expr::BinOp(left) = first
            && left.span().start_offset == start
            && matches!(left.op, ast::BinOpKind::Concat)
        {
            operands.push(&left.right);
            places.push(self.operator(&left.left, sign));
            first = &left.left;
        }
        operands.push(first);
        if let Some(places) = places.into_iter().collect::<Option<Vec<usize>>>() {
            self.insert(start as usize, function);
            self.edits.extend(places.into_iter().map(|at| Edit { at, taken: 1, put: ", ".to_owned() }));
            operands.into_iter().rev().for_each(|e| self.expression(e));
            self.insert(operation.span().end_offset as usize, ")");
        } else {
            operands.into_iter().rev().for_each(|e| self.expression(e));
        }
    }
}

/// Whether dicts, lists or strings have a method of this name.
fn is_method(name: &str) -> bool {
    strings::METHODS.contains(&name) || collections::METHODS.contains(&name)
}
