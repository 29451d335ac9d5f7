//! Rewrites operators, keys and methods to calls of functions.

use minijinja::machinery::{Span, ast};

use super::{
    collections,
    compare::OPERATORS,
    python::error,
    strings,
    walk::{Edit, Walk},
};

impl Walk<'_> {
    /// The position of the operator after an operand, which only white space and closing parentheses precede.
    pub fn operator(&self, left: &ast::Expr<'_>, operator: char) -> Option<usize> {
        let end = left.span().end_offset as usize;
        let behind = &self.source[end..];
        let at = behind.find(|c: char| !c.is_whitespace() && c != ')')?;
        behind[at..].starts_with(operator).then_some(end + at)
    }

    /// Rewrites `expression.name`, which may be a method that is not called.
    pub fn attribute(&mut self, attribute: &ast::Spanned<ast::GetAttr<'_>>) {
        let (start, end) = (start(attribute.span(), &attribute.expr), attribute.span().end_offset as usize);
        if is_method(attribute.name)
            && let Some(dot) = self.operator(&attribute.expr, '.')
        {
            self.insert(start, "__method(");
            self.edits.push(Edit { at: dot, taken: end - dot, put: format!(", '{}')", attribute.name) });
        }
        self.expression(&attribute.expr);
    }

    /// Rewrites `expression[key]`.
    pub fn item(&mut self, item: &ast::Spanned<ast::GetItem<'_>>) {
        self.expression(&item.expr);
        let constant = matches!(item.subscript_expr, ast::Expr::Const(_));
        match self.operator(&item.expr, '[').filter(|_| !constant) {
            Some(open) => {
                self.insert(open + 1, "__index(");
                self.expression(&item.subscript_expr);
                self.insert(item.span().end_offset as usize - 1, ")");
            }
            None => self.expression(&item.subscript_expr),
        }
    }

    /// Rewrites `{key: value, …}`: a key is between a comma, or the brace, and a colon.
    pub fn map(&mut self, map: &ast::Spanned<ast::Map<'_>>) {
        if map.keys.iter().any(|key| !matches!(key, ast::Expr::Const(_))) {
            let (start, end) = (map.span().start_offset as usize, map.span().end_offset as usize);
            let first = self.tokens.partition_point(|token| token.start < start);
            let (mut depth, mut edits, mut begins, mut in_key) = (0, Vec::new(), false, false);
            for token in self.tokens[first..].iter().take_while(|token| token.start < end) {
                if begins && token.nests >= 0 {
                    edits.push((token.start, "__key("));
                    (begins, in_key) = (false, true);
                }
                if depth == 1 && token.is_colon && in_key {
                    edits.push((token.start, ")"));
                    in_key = false;
                }
                let opens = depth == 0 && token.nests > 0;
                depth += token.nests;
                begins |= opens || (depth == 1 && token.separates);
            }
            edits.into_iter().for_each(|(at, put)| self.insert(at, put));
        }
        map.keys.iter().chain(&map.values).for_each(|e| self.expression(e));
    }

    /// Whether `a in b` is the inner expression of `a not in b`.
    pub fn is_not_in(&self, operation: &ast::Spanned<ast::BinOp<'_>>) -> bool {
        matches!(operation.op, ast::BinOpKind::In) && self.operator(&operation.left, 'n').is_some()
    }

    /// The operator after an operand: its position, its name, and its length in the source.
    fn comparison(&self, left: &ast::Expr<'_>) -> Option<(usize, &'static str, &'static str, usize)> {
        let end = left.span().end_offset as usize;
        let at = end + self.source[end..].find(|c: char| !c.is_whitespace() && c != ')')?;
        let rest = &self.source[at..];
        if let Some(behind) = rest.strip_prefix("not") {
            let gap = behind.len() - behind.trim_start().len();
            return behind.trim_start().starts_with("in").then_some((at, "not in", "__not_in", 3 + gap + 2));
        }
        let (operator, function, _) = OPERATORS.iter().find(|(operator, ..)| rest.starts_with(operator))?;
        Some((at, operator, function, operator.len()))
    }

    /// Rewrites `expression[start:stop]`: an undefined value cannot be sliced.
    pub fn sliced(&mut self, slice: &ast::Spanned<ast::Slice<'_>>) {
        match self.operator(&slice.expr, '[') {
            Some(open) => {
                self.insert(start(slice.span(), &slice.expr), "__defined(");
                self.expression(&slice.expr);
                self.insert(open, ")");
            }
            None => self.expression(&slice.expr),
        }
    }

    /// Rewrites comparisons to a call. The span of a comparison begins with the token before it.
    pub fn compare(&mut self, span: Span, operands: &[&ast::Expr<'_>]) {
        let before = self.tokens.partition_point(|token| token.start <= span.start_offset as usize);
        let places: Option<Vec<_>> = operands[..operands.len() - 1].iter().map(|e| self.comparison(e)).collect();
        let (Some(start), Some(places)) = (self.tokens.get(before).map(|token| token.start), places) else {
            self.failed = Some(error("a comparison of the chat template cannot be read"));
            return;
        };
        match places.as_slice() {
            [(at, _, function, length)] => {
                self.insert(start, &format!("{function}("));
                self.edits.push(Edit { at: *at, taken: *length, put: ", ".to_owned() });
            }
            places => {
                self.insert(start, "__chain(");
                for (at, operator, _, length) in places {
                    self.edits.push(Edit { at: *at, taken: *length, put: format!(", '{operator}', ") });
                }
            }
        }
        operands.iter().for_each(|e| self.expression(e));
        self.insert(span.end_offset as usize, ")");
    }

    /// Rewrites `left operator right`.
    pub fn operation(&mut self, operation: &ast::Spanned<ast::BinOp<'_>>) {
        use ast::BinOpKind::{Add, Concat, Eq, Gt, Gte, In, Lt, Lte, Mul, Ne, Rem};
        match operation.op {
            Eq | Ne | Gt | Gte | Lt | Lte | In => self.compare(operation.span(), &[&operation.left, &operation.right]),
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

    /// Visits the operands of `a + b + …`, which as a whole is bounded already.
    fn chain(&mut self, operation: &ast::Spanned<ast::BinOp<'_>>) {
        use ast::BinOpKind::{Add, Mul, Sub};
        match &operation.left {
            ast::Expr::BinOp(left) if matches!(left.op, Add | Sub | Mul) => self.chain(left),
            left => self.expression(left),
        }
        self.expression(&operation.right);
    }

    /// Rewrites `a ~ b ~ …` to a call with all operands, and `a % b` to one with two.
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

/// The position where `expression.name`, `expression[…]` or `expression(…)` begins. If there are several such suffixes, the span of
/// the first one begins with the expression, and the span of each other one with the suffix itself.
fn start(span: Span, expression: &ast::Expr<'_>) -> usize {
    use ast::Expr;
    let own = expression.span();
    if span.start_offset <= own.start_offset {
        return span.start_offset as usize;
    }
    match expression {
        Expr::GetAttr(e) => start(own, &e.expr),
        Expr::GetItem(e) => start(own, &e.expr),
        Expr::Slice(e) => start(own, &e.expr),
        Expr::Call(e) => start(own, &e.expr),
        _ => own.start_offset as usize,
    }
}

/// Whether dicts, lists or strings have a method of this name.
fn is_method(name: &str) -> bool {
    strings::METHODS.contains(&name) || collections::METHODS.contains(&name)
}
