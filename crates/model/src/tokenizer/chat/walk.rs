//! Walks the syntax tree of a template and collects edits of its source; [`operators`](super::operators) decides what is rewritten.

use minijinja::{
    Error,
    machinery::{Span, Token, ast},
};

use super::python::error;

/// An edit of the source: removes bytes at an offset, and inserts text there.
pub struct Edit {
    /// The offset.
    pub at: usize,
    /// Number of bytes that are removed.
    pub taken: usize,
    /// The text that is inserted.
    pub put: String,
}

/// The position of a token, and whether it is a bracket or a separator.
pub struct Part {
    /// The offset where it begins.
    pub start: usize,
    /// 1 for an opening bracket, -1 for a closing one.
    pub nests: i32,
    /// Whether it is a comma.
    pub separates: bool,
    /// Whether it is a colon.
    pub is_colon: bool,
}

impl Part {
    /// From a token.
    pub fn of(token: &Token<'_>, span: Span) -> Self {
        let nests = match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => -1,
            _ => 0,
        };
        let (separates, is_colon) = (matches!(token, Token::Comma), matches!(token, Token::Colon));
        Self { start: span.start_offset as usize, nests, separates, is_colon }
    }
}

/// The state of the walk, and what it has found.
pub struct Walk<'s> {
    /// The source.
    pub source: &'s str,
    /// Its tokens.
    pub tokens: Vec<Part>,
    /// The edits so far.
    pub edits: Vec<Edit>,
    /// The variables that were read.
    pub read: Vec<String>,
    /// Why the template is refused.
    pub failed: Option<Error>,
}

impl Walk<'_> {
    /// Inserts text at an offset.
    pub fn insert(&mut self, at: usize, put: &str) {
        self.edits.push(Edit { at, taken: 0, put: put.to_owned() });
    }

    fn statements(&mut self, statements: &[ast::Stmt<'_>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    /// Visits a statement.
    pub fn statement(&mut self, statement: &ast::Stmt<'_>) {
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

    /// Jinja evaluates the values of `with` outside of its scope, and each default of a macro after the arguments before it.
    /// minijinja does neither, so a value or default that reads a name from the same list is refused.
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

    fn call(&mut self, call: &ast::Spanned<ast::Call<'_>>) {
        match &call.expr {
            ast::Expr::GetAttr(method) => {
                if method.name == "changed"
                    && let Some(open) = self.operator(&call.expr, '(')
                {
                    self.insert(open + 1, "__small(");
                    self.arguments(&call.args);
                    self.insert(call.span().end_offset as usize - 1, ")");
                    return self.expression(&method.expr);
                }
                self.expression(&method.expr);
            }
            called => self.expression(called),
        }
        self.arguments(&call.args);
    }

    /// Visits the arguments of a call.
    pub fn arguments(&mut self, args: &[ast::CallArg<'_>]) {
        use ast::CallArg;
        for arg in args {
            match arg {
                CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e) => {
                    self.expression(e);
                }
            }
        }
    }

    /// Visits an expression.
    pub fn expression(&mut self, expression: &ast::Expr<'_>) {
        use ast::Expr;
        match expression {
            Expr::Var(e) => self.read.push(e.id.to_owned()),
            Expr::Const(_) => {}
            Expr::Slice(e) => {
                self.sliced(e);
                [&e.start, &e.stop, &e.step].into_iter().flatten().for_each(|e| self.expression(e));
            }
            Expr::UnaryOp(e) => match &e.expr {
                Expr::BinOp(inner) if self.is_not_in(inner) => self.compare(inner.span(), &[&inner.left, &inner.right]),
                inner => self.expression(inner),
            },
            Expr::BinOp(e) => self.operation(e),
            Expr::Compare(e) => {
                let operands: Vec<_> = [&e.expr].into_iter().chain(e.ops.iter().map(|op| &op.expr)).collect();
                self.compare(e.span(), &operands);
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
            Expr::GetItem(e) => self.item(e),
            Expr::Call(e) => self.call(e),
            Expr::List(e) => e.items.iter().for_each(|e| self.expression(e)),
            Expr::Tuple(e) => e.items.iter().for_each(|e| self.expression(e)),
            Expr::Map(e) => self.map(e),
        }
    }
}
