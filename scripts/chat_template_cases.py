"""What chat templates are made of: short expressions and whole templates, rendered by `make_chat_goldens.py`.

`CONTEXT` is what every case sees beside `messages`. `NOT_SUPPORTED` names the cases where this server gives an error or
another text on purpose, each with its reason; the test skips none of them silently: it checks the error.
"""

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is\tthe weather in Paris?\n"},
    {"role": "assistant", "content": "Sunny.", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": [True, None, 2.5]}}}]},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the \"weather\" in a city's <centre> & more.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                },
                "required": ["city"],
            },
        },
    }
]
CONTEXT = {
    "s": "Hello, World",
    "spaced": "  a b\tc  d ",
    "text": "one two\nthree\r\nfour\n",
    "sharp": "Straße ǅ ﬁ É",
    "quoted": "it's \"x\"\\\n\té\x7f\u200b😀",
    "single": "it's",
    "n": 7,
    "neg": -7,
    "big": 12345678901234567890,
    "f": 2.5,
    "whole": 3.0,
    "tiny": 0.00001,
    "huge": 1e16,
    "yes": True,
    "no": False,
    "nothing": None,
    "l": [3, 1, 2],
    "words": ["b", "A", "c", "a"],
    "empty": [],
    "d": {"b": 1, "a": "x", "items": [1], "nested": {"k": None}},
    "people": [
        {"name": "Bo", "age": 3, "city": "X"},
        {"name": "al", "age": 1, "city": "Y"},
        {"name": "Cy", "age": 2, "city": "X", "admin": True},
    ],
    "html": "<p class=\"a\">Tom &amp; 'Jerry'</p>\n <b>x</b>",
    "url": "https://a.b/c d?e=f&g=é",
    "tools": TOOLS,
}

# Methods of strings, on several strings each.
METHODS = {
    "capitalize": ["()"], "casefold": ["()"], "lower": ["()"], "upper": ["()"], "swapcase": ["()"], "title": ["()"],
    "strip": ["()", "(None)", "('Hd ')"], "lstrip": ["()", "('He ')"], "rstrip": ["()", "('d ')"],
    "isalnum": ["()"], "isalpha": ["()"], "isascii": ["()"], "isdecimal": ["()"], "isdigit": ["()"],
    "isidentifier": ["()"], "islower": ["()"], "isnumeric": ["()"], "isprintable": ["()"], "isspace": ["()"],
    "istitle": ["()"], "isupper": ["()"],
    "split": ["()", "(' ')", "(None, 1)", "('l', 1)", "(maxsplit=1)", "(sep='o')"], "rsplit": ["()", "(' ', 1)", "('o', 1)", "(None, 1)"],
    "splitlines": ["()", "(True)", "(keepends=True)"], "partition": ["(' ')", "('zz')"], "rpartition": ["('o')", "('zz')"],
}
SUBJECTS = ["s", "spaced", "text", "sharp"]
ON_STRINGS = [f"{name}.{method}{call}" for method, calls in METHODS.items() for call in calls for name in SUBJECTS]

STRINGS = [
    # search
    "s.find('o')", "s.find('o', 5)", "s.find('o', -3)", "s.find('o', 5, 7)", "s.find('zz')", "s.rfind('o')", "s.rfind('o', 0, 6)",
    "s.index('o')", "s.index('zz')", "s.rindex('o')", "s.rindex('zz')", "sharp.find('É')", "s.find('')", "s.rfind('')",
    "s.count('l')", "s.count('l', 4)", "s.count('')", "s.count('l', 0, 3)", "s.startswith('He')", "s.startswith(('x', 'H'))",
    "s.startswith('W', 7)", "s.endswith('ld')", "s.endswith(('x', 'ld'))", "s.endswith('lo', 0, 5)", "s.startswith('')", "s.startswith(3)",
    "'He' in s", "'' in s", "'x' not in s", "3 in s",
    # making
    "s.replace('l', 'L')", "s.replace('l', 'L', 1)", "s.replace('l', 'L', 2)", "s.replace('', '-')", "s.replace('', '-', 3)",
    "s.removeprefix('Hello')", "s.removeprefix('x')", "s.removesuffix('World')", "s.removesuffix('x')", "s.removesuffix('')",
    "'7'.zfill(3)", "'-7'.zfill(4)", "'+7'.zfill(4)", "'abc'.zfill(2)", "''.zfill(2)", "'é'.zfill(3)",
    "'ab'.center(5)", "'ab'.center(6, '*')", "'abc'.center(6, '*')", "'abc'.center(5, '*')", "'abc'.center(2)", "'ab'.center(5, 'xy')", "'ab'.ljust(4) ~ '|'", "'ab'.ljust(4, '.')", "'ab'.rjust(4)", "'ab'.rjust(4, '0')",
    "'a\tb\t'.expandtabs() ~ '|'", "'a\tb\n\tc'.expandtabs(4)", "'a\tb'.expandtabs(0)", "spaced.expandtabs(tabsize=3)",
    "', '.join(words)", "'-'.join('abc')", "''.join([])", "','.join([1, 2])", "','.join(d)", "','.join(('a', 'b'))", "','.join(words | map('upper'))",
    "s.translate({72: 'J'})", "s.encode('utf-8')", "s.maketrans('a', 'b')", "s.nosuch()", "s.nosuch",
    "'a,b,c'.split(',', -1)", "'a,b,c'.split(',', 0)", "'a,,b'.split(',')", "''.split()", "''.split(',')", "'a'.split('')", "'abc'.rsplit('b', 0)", "' a  b '.split(' ')",
    "'a\x0bb\x1cc\u2028d\x85e'.splitlines()", "'ab'.split('b')[-1]", "s.split(',')[0]", "s.split(', ') | first", "s.split(', ') | length",
    "'they''re bill''s'.title()", "single.title()", "\"they're x-ray 3d\".title()", "'ﬁ ß'.upper()", "'ß'.casefold()", "'ΑΣ'.lower()", "'ǆx'.title()", "'ǆx'.capitalize()", "'İ'.lower() | length",
    "''.isspace()", "''.isalnum()", "''.isprintable()", "''.isascii()", "'²'.isdigit()", "'²'.isdecimal()", "'½'.isnumeric()", "'٣'.isdecimal()", "'_a1'.isidentifier()", "'1a'.isidentifier()", "'if'.isidentifier()", "'a b'.isprintable()", "'\u00a0'.isprintable()", "'\u00a0'.isspace()", "'\x1c'.isspace()", "'A1'.isupper()", "'1'.isupper()", "'aB'.islower()", "'Ab Cd'.istitle()", "'Ab cd'.istitle()", "'ªa'.isalpha()", "'一'.isalpha()", "'一'.isnumeric()", "'\x00'.isprintable()", "'\ue000'.isprintable()", "'\u0378'.isprintable()",
    # formatting
    "'{} {}'.format(1, 'a')", "'{1} {0}'.format(1, 'a')", "'{a}-{b}'.format(a=1, b=none)", "'{:>6}|{:<6}|{:^6}'.format('a', 'b', 'c')", "'{:05d}'.format(42)", "'{:.2f}'.format(3.14159)", "'{:,}'.format(1234567)", "'{:x}'.format(255)", "'{!r}'.format('a')", "'{!s:>4}'.format(1)", "'{{}}'.format()", "'{0[a]}'.format(d)", "'{0.a}'.format(d)", "'{} {}'.format(1)", "'{:*^9}'.format('x')", "'{:e}'.format(12345.678)", "'{:%}'.format(0.25)", "'{:+d}'.format(3)", "'{:b}'.format(5)", "'{:#x}'.format(255)", "'{:g}'.format(0.0001)", "'{:10.3f}|'.format(2.5)", "'{:<{w}}|'.format('a', w=4)", "'{}'.format(2.0)", "'{}'.format(l)", "'{}'.format(yes)", "'{a}'.format_map({'a': 1})", "'{:d}'.format('x')", "'{:_}'.format(1234567)", "'{'.format(1)", "'}'.format(1)", "'{a}'.format(1)",
    "'%s' % 'a'", "'%s %s' % ('a', 1)", "'%d' % 3", "'%d' % 3.7", "'%05d' % 42", "'%-5d|' % 42", "'%+d' % 42", "'%5s|' % 'a'", "'%-5s|' % 'a'", "'%.2f' % f", "'%x' % 255", "'%X' % 255", "'%o' % 8", "'%e' % 12345.678", "'%g' % 0.0001", "'%g' % 1e20", "'%c' % 65", "'%c' % 'a'", "'%r' % 'a'", "'%%' % ()", "'%d%%' % 3", "'%(a)s-%(b)d' % d", "'%s' % (l,)", "'%s' % l", "'%s %s' % 'a'", "'%s' % ('a', 'b')", "'%d' % 'a'", "'%*d' % (5, 3)", "'%.3s' % 'abcdef'", "'%#x' % 255", "'% d' % 3", "'%i' % 3", "'%u' % 3", "'%s' % none", "'%s' % yes", "'%a' % 'é'", "'abc' % ()", "'abc' % {'a': 1}", "'abc' % 1", "'%q' % 1", "'%' % 1", "'%s' % d", "'%s' % missing", "('%s' % 'a') ~ 'b'", "'a' ~ '%s' % 'b'", "'%s' % n * 2", "n % 2 * 3", "-7 % 3", "7 % -3", "neg % 3", "7.5 % 2", "-7.5 % 2", "n % 0", "'%s' % 7 % 3", "('%s' % 1) | length", "'%s' % words | first", "n % 2 == 1", "not n % 2", "l[n % 3]", "(n + 1) % (2 + 1)", "['%s' % x for x in l]", "'%s' % (n % 4)", "2 ** 3 % 5", "'%s' % -1", "'%s|%s' % (s | upper, d.a)", "yes % 2", "none % 2", "l % 2",
    # operators
    "s ~ n ~ f ~ yes ~ nothing ~ l", "'a' + 'b'", "'a' + 1", "1 + 'a'", "l + [4]", "l + words", "(1,) + (2,)", "l + (1,)", "'a' * 3", "3 * 'a'", "'a' * -1", "'a' * 2.0", "[0] * 3", "2 * [1, 2]", "'a' * 'b'", "'a' - 'b'", "d + d", "none + 1", "missing + 'a'", "missing ~ 'a'", "s + missing",
    "s[0]", "s[-1]", "s[99]", "s[1:4]", "s[:-1]", "s[::-1]", "s[::2]", "s[10:2:-2]", "s[-3:]", "s[:0]", "s[5:100]", "s[::0]", "l[::-1]", "l[1:]", "l[-1]", "l[9]", "l[:-1]", "l[5:1:-1]", "(1, 2, 3)[1:]", "s['a']", "d['a']", "d.a", "d['zz']", "d.zz", "d['items']", "missing.x", "missing['x']", "nothing.x", "nothing['x']", "n.x", "s.x", "l.x", "l['x']", "d[0]", "d.a.b", "d.zz.b",
    "7 // 2", "-7 // 2", "7 // -2", "7.5 // 2", "7 / 2", "6 / 2", "7 // 0", "7 / 0", "2 ** 10", "2 ** -1", "2 ** 0.5", "2 ** 100", "-2 ** 2", "(-8) ** 3", "big + 1", "big * 10", "9223372036854775807 + 1", "-9223372036854775808 - 1", "170141183460469231731687303715884105727", "1_000", "0x10", "0b11", "0o17", "1e3", "1.5e-3", "1E2", ".5", "-n", "+n", "- 3", "not n", "--n",
    "1 < 2 < 3", "1 < 3 < 2", "1 == 1.0", "1 == true", "'1' == 1", "none == none", "[1] == [1.0]", "'a' < 'b'", "'B' < 'a'", "'é' > 'z'", "[1, 2] < [1, 3]", "(1, 2) == [1, 2]", "d == {'b': 1}", "1 < 'a'", "none < 1", "missing < 1", "missing == none", "missing == missing", "yes and 'x'", "no or 'y'", "none or 0", "'' and 1", "not ''", "not []", "1 in l", "9 in l", "'a' in d", "1 in d", "'x' in nothing", "'x' in missing", "'a' not in words", "n if yes else f", "n if no", "(n if no) is undefined", "'x' if missing else 'y'", "1 if none else 2", "n > 3 and f < 3 or no", "1 != 2", "yes == 1", "true + true",
    # what is written
    "f", "whole", "tiny", "huge", "1e15", "1e16", "1e22", "123456789012345678.0", "0.1 + 0.2", "1e-4", "0.0001", "0.00001", "1.5e300", "1e400", "-1e400", "1e400 - 1e400", "-0.0", "5e-324", "1/3", "100.0", "1e5", "yes", "no", "nothing", "missing", "[]", "{}", "()", "(1,)", "(1, 'a')", "l", "words", "d", "people", "[quoted]", "[single]", "['\\'\"']", "['\\\\']", "{'a': 1.0, 1: none, none: true, 2.5: 'x', (1, 2): 3}", "[missing]", "[f, tiny, huge]", "[d, [l]]", "[s, true, none]", "quoted", "big", "neg", "[[], {}, ()]", "tools", "d.items()", "d.keys()", "d.values()", "d.items() | list", "range(3)", "range(3) | list", "range(1, 10, 3) | list", "range(3, 0, -1) | list", "range(0)", "range(5)[2]", "range(3) | length", "dict(a=1)", "dict(d, c=2)", "dict([('a', 1)])", "namespace(a=1).a", "['\\x00\\x7f\\xa0\\u200b\\U0001F600\\ue000']",
    # dicts and lists
    "d.get('a')", "d.get('zz')", "d.get('zz', 'def')", "d.get('items')", "d.keys() | list", "d.values() | list", "d.items() | length", "d | length", "d.copy()", "d.copy() == d", "d.pop('a')", "d.update({'a': 1})", "d.setdefault('q', 1)", "d.clear()", "d.popitem()", "l.index(1)", "l.index(9)", "l.index(2, 1)", "l.count(1)", "l.copy()", "l.append(1)", "l.pop()", "l.extend([1])", "l.insert(0, 1)", "l.remove(1)", "l.sort()", "l.reverse()", "l.clear()", "(1, 2).index(2)", "(1, 2).count(1)", "{'get': 5}.get('get')", "{'keys': 1}.keys() | list", "d.nested.k", "d['nested']['k']", "dict.fromkeys(['a'], 1)", "{'a': 1}.items() | list", "{1: 2}[1]", "d.__class__", "s.__class__", "''.__class__.__mro__", "people[0].name", "people[0]['name']", "people.0.name",
]

FILTERS = [
    "neg | abs", "-2.5 | abs", "l | attr('x')", "people[0] | attr('name')", "l | batch(2) | list", "l | batch(2, 'x') | list", "s | capitalize", "'hELLO wORLD' | capitalize", "'ab' | center(6)", "'ab' | center(width=5) ~ '|'", "missing | default('x')", "none | default('x')", "none | default('x', true)", "'' | default('x', true)", "missing | d('y')", "missing | default", "d | dictsort", "{'b': 1, 'A': 2, 'a': 3} | dictsort", "{'b': 1, 'A': 2} | dictsort(true)", "{'b': 1, 'a': 2} | dictsort(by='value')", "{'b': 1, 'a': 2} | dictsort(reverse=true)", "html | e", "html | escape", "html | forceescape", "html | safe", "html | e | e", "1000 | filesizeformat", "1 | filesizeformat", "123456789 | filesizeformat", "123456789 | filesizeformat(true)", "'%s-%s' | format('a', 1)", "'%(a)s' | format(a=1)", "'%d' | format(3.9)", "'%05.1f' | format(2.25)", "l | first", "empty | first", "'abc' | first", "l | last", "empty | last", "'abc' | last", "d | first", "3.7 | int", "'42' | int", "'4x' | int", "'4x' | int(5)", "'0x1f' | int(base=16)", "'ff' | int(0, 16)", "none | int", "'3.9' | int", "yes | int", "'  7 ' | int", "'1_000' | int", "big | string | int", "'3.5' | float", "'x' | float", "'x' | float(1.5)", "3 | float", "'inf' | float", "'1e3' | float", "none | float", "d | items | list", "missing | items | list", "l | join", "l | join(', ')", "people | join(', ', attribute='name')", "people | join(', ', 'age')", "'abc' | join('-')", "[1, none, true, 2.0] | join('|')", "d | join(',')", "[missing, 'a'] | join('-')",
    "l | length", "s | length", "d | count", "3 | length", "none | length", "'é😀' | length", "missing | length", "'abc' | list", "d | list", "l | list", "none | list", "s | lower", "3 | lower", "true | lower", "people | map(attribute='name') | list", "people | map(attribute='admin', default='no') | list", "people | map(attribute='admin') | list", "words | map('upper') | list", "words | map('replace', 'a', 'b') | join", "l | map('string') | join(',')", "['a.b'] | map('upper') | first", "people | map(attribute='name.0') | list", "words | map('nosuch') | list", "l | max", "l | min", "words | max", "words | min", "words | max(case_sensitive=true)", "empty | max", "people | max(attribute='age')", "people | min(attribute='name')", "l | pprint", "d | pprint", "'a' | pprint", "l | random", "l | reject('odd') | list", "l | select('odd') | list", "l | select('greaterthan', 1) | list", "[0, 1, '', none] | select | list", "[0, 1, '', none] | reject | list", "people | selectattr('admin') | map(attribute='name') | list", "people | selectattr('age', 'gt', 1) | map(attribute='name') | list", "people | selectattr('city', 'equalto', 'X') | list | length", "people | selectattr('city', '==', 'X') | list | length", "people | rejectattr('admin') | map(attribute='name') | list", "people | rejectattr('admin', 'defined') | map(attribute='name') | join(',')", "people | selectattr('city', 'in', ['Y']) | map(attribute='name') | first", "people | selectattr('name', 'nosuch') | list", "messages | selectattr('role', 'equalto', 'user') | list | last", "messages | selectattr('role', 'eq', 'system') | map(attribute='content') | join",
    "s | replace('l', 'L')", "s | replace('l', 'L', 1)", "n | replace('7', '8')", "html | replace('<', '[')", "s | reverse", "l | reverse | list", "words | reverse | join", "3.14159 | round(2)", "2.5 | round", "3.5 | round", "2.567 | round(1, 'floor')", "2.51 | round(1, 'ceil')", "7 | round", "1234 | round(-2)", "2.675 | round(2)", "2 | round | int", "0.5 | round", "-0.5 | round", "[1, 2, 3, 4, 5, 6, 7] | slice(3) | list", "[1, 2, 3, 4, 5, 6, 7] | slice(3, 'x') | list", "l | sort", "l | sort(reverse=true)", "l | sort(true)", "words | sort", "words | sort(case_sensitive=true)", "people | sort(attribute='age') | map(attribute='name') | list", "people | sort(attribute='city,name') | map(attribute='name') | list", "[1, 'a'] | sort", "d | sort", "n | string", "none | string", "2.0 | string", "l | string", "html | striptags", "'a <!-- x\ny --> b<br/>c' | striptags", "l | sum", "people | sum(attribute='age')", "l | sum(start=10)", "empty | sum", "[1.5, 2] | sum", "words | sum", "s | title", "'hello-world foo_bar (baz) it''s' | title", "single | title", "'hello wORLD' | title", "d | tojson", "quoted | tojson", "html | tojson", "[1, 2.0, 1e16, none, true, tiny] | tojson", "d | tojson(indent=2)", "d | tojson(4)", "{'b': 1, 'a': 2} | tojson(sort_keys=true)", "'é' | tojson(ensure_ascii=true)", "'é' | tojson(true)", "'é😀' | tojson(ensure_ascii=true)", "l | tojson(separators=(',', ':'))", "l | tojson(separators=[', ', ': '])", "d | tojson(separators=(',', ':'), indent=1)", "{} | tojson(indent=2)", "[] | tojson(indent=2)", "{1: 2, none: 3, true: 4} | tojson", "(1, 2) | tojson", "missing | tojson", "1e400 | tojson", "'\\u2028\\x7f\\x1f</script>' | tojson", "big | tojson", "2 ** 100 | tojson", "range(3) | tojson", "d.items() | tojson", "d | tojson(indent='  ')", "d | tojson(indent=0)", "d | tojson(nosuch=1)", "tools | tojson(indent=4)", "tools | tojson", "-0.0 | tojson", "1e-7 | tojson", "d.keys() | list | tojson", "namespace(a=1) | tojson",
    "spaced | trim", "'xxaxx' | trim('x')", "3 | trim", "none | trim", "text | truncate(9)", "'foo bar baz qux' | truncate(9)", "'foo bar baz qux' | truncate(9, true)", "'foo bar baz qux' | truncate(11)", "'foo bar baz qux' | truncate(11, false, '...', 0)", "'foo bar baz qux' | truncate(5, end='!')", "'foo bar baz qux' | truncate(length=7, leeway=0)", "[1, 2, 1, 3] | unique | list", "words | unique | list", "['a', 'A', 'b'] | unique | list", "['a', 'A', 'b'] | unique(true) | list", "people | unique(attribute='city') | map(attribute='name') | list", "s | upper", "url | urlencode", "'a b/c' | urlencode", "{'a': 'b c', 'd': 1} | urlencode", "[('a', 1), ('b', '&')] | urlencode", "3 | urlencode", "s | wordcount", "text | wordcount", "''|wordcount", "'the quick brown fox jumps over' | wordwrap(10)", "'aaaaaaaaaaaaaaa b' | wordwrap(5)", "'aaaaaaaaaaaaaaa b' | wordwrap(5, false)", "'a b c d e f' | wordwrap(3, wrapstring='|')", "'one\ntwo three four' | wordwrap(8)", "'well-known words-here' | wordwrap(6)", "{'class': 'a', 'id': 1, 'none': none, 'x': '\"'} | xmlattr", "{'a': 1} | xmlattr(false)", "'a\nb\n\nc' | indent", "'a\nb\n\nc' | indent(2)", "'a\nb\n\nc' | indent(2, true)", "'a\nb\n\nc' | indent(2, first=true, blank=true)", "'a\nb' | indent('> ')", "'a\nb\n' | indent(width=3) ~ '|'", "'a\r\nb' | indent(1)", "people | groupby('city') | list", "people | groupby('city') | map(attribute='grouper') | list", "people | groupby('admin', default=false) | map('first') | list", "people | groupby('city') | map('last') | map('length') | list", "'a\nb' | lines", "s | split(',')", "l | zip(words)", "s | bool", "s | nosuch", "url | urlize", "'visit www.x.org' | urlize", "s | e | upper", "l | first | string | length", "words | join(' ') | title", "d | dictsort | first | first", "l | select('in', [1, 2]) | list", "l | select('divisibleby', 3) | list", "'a' | indent(1, 2, 3, 4)", "l | join(', ', nosuch=1)",
]

TESTS = [f"{value} is {test}" for test in ["sequence", "iterable", "mapping", "string", "number", "integer", "float", "boolean", "none", "defined", "undefined", "callable", "true", "false", "lower", "upper", "escaped"] for value in ["s", "n", "f", "yes", "nothing", "l", "d", "missing", "(1, 2)", "range(2)", "d.items()", "big"] if not (test in ("lower", "upper") and value not in ("s", "n", "missing"))]
TESTS += [
    "n is odd", "n is even", "n is divisibleby(7)", "n is divisibleby 7", "n is eq 7", "n is equalto 7", "n is ne 7", "n is lt 8", "n is le 7", "n is gt 8", "n is ge 7", "n is greaterthan 3", "n is lessthan 3", "n is in [7]", "'a' is in d", "'x' is in s", "n is not in [7]", "n is not none", "n is sameas n", "n is sameas 7", "none is sameas none", "true is sameas true", "1 is sameas true", "l is sameas l", "'upper' is filter", "'nosuch' is filter", "'odd' is test", "'nosuch' is test", "n is nosuch", "raise_exception is callable", "range is callable", "d.get is callable", "d.items is callable", "s.upper is callable", "s.upper is defined", "s.strip is defined", "d.get is defined", "s.nosuch is defined", "s is string and n is number", "not n is odd", "n is odd or f", "true is boolean", "1 is boolean", "true is integer", "true is number", "1.0 is integer", "'a' is lower", "'A' is upper", "'Ab' is lower", "n is == 7", "messages[0].content is string", "messages[2].tool_calls is iterable", "messages[1].tool_calls is defined", "messages[0]['content'] is not mapping", "f is odd", "'7' is odd", "n is not divisibleby(2)", "loop is defined", "missing is none", "none is defined", "none is none", "namespace(a=1) is mapping", "dict() is mapping", "undefined is undefined", "f2 is undefined", "x.y is defined", "d.zz is defined", "d.a is defined", "d['nested']['q'] is defined",
]

# Statements, and what they leave of the white space around them.
SNIPPETS = [
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{% if loop.previtem is defined and loop.previtem > x %}down{% endif %}{% if loop.nextitem is undefined %}end{% endif %}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }};{% endfor %}", "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in empty %}x{% else %}none{% endfor %}", "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{{ loop.last }}{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}", "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for c in 'aé' %}{{ c }}-{% endfor %}", "{% for x in missing %}x{% else %}e{% endfor %}", "{% for x in none %}x{% endfor %}", "{% for x in 3 %}x{% endfor %}", "{% for a, b in [1] %}x{% endfor %}", "{% for a, b in [(1, 2, 3)] %}x{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in l recursive %}{{ x }}{% endfor %}", "{% for x in [[1, [2]], [3]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}", "{% for x in l %}{% for y in words %}{{ loop.index }}{{ loop.depth }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for x in l %}{% set n = x %}{% endfor %}{{ n }}", "{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}", "{% set ns = namespace(d) %}{{ ns.a }}", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}", "{% set ns = namespace(_x=1) %}{{ ns._x }}", "{% set ns = namespace(x=1) %}{% set ns._y = 1 %}x", "{% set d.x = 1 %}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}", "{% set a, b = 1 %}x", "{% set x %}  in {{ n }} {% endset %}[{{ x }}]", "{% set x | upper %}in{% endset %}{{ x }}", "{% set x %}<b>{% endset %}{{ x | e }}", "{% if no %}a{% elif n > 3 %}b{% else %}c{% endif %}", "{% if missing %}a{% else %}b{% endif %}", "{% if yes %}{% set q = 5 %}{% endif %}{{ q }}", "{% with %}{% set q = 5 %}{% endwith %}{{ q }}", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "{% with a = 1, b = a %}{{ b }}{% endwith %}", "{% filter upper %}abc{{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}abc{% endfilter %}", "{% raw %}{{ x }}{% endraw %}", "{# comment {{ x }} #}a", "a{#- c -#} b", "{% do l %}", "{% call f() %}{% endcall %}",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(a=4, c='y') }}|{{ m() }}", "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a) %}{{ caller() }}{{ a }}{% endmacro %}{% call m(1) %}body{% endcall %}", "{% macro m() %}{{ caller('x', 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}", "{% macro m() %}{{ s }}{{ n }}{% endmacro %}{{ m() }}", "{% macro m(n) %}{% if n > 0 %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "{% macro m() %} x {% endmacro %}[{{ m() | trim }}]", "{% macro m() %}{% endmacro %}{{ m.name }}{{ m.arguments }}", "{% macro m(a) %}{{ a }}{% endmacro %}{% set x = m('<') %}{{ x ~ '&' }}{{ x is string }}{{ x | length }}", "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{{ m() }}{% macro m() %}late{% endmacro %}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "{% generation %}a{{ n }}{% endgeneration %}b", "{% generation %}{% set q = 1 %}{% endgeneration %}[{{ q }}]", "{% for x in l %}{%- generation -%} {{ loop.index }}{{ x }} {%- endgeneration -%}\n{% endfor %}", "{% set q = 0 %}{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}[{{ q }}]", "{%   generation   %}x{%+ endgeneration %}", "{% generation %}x", "{{ '{% generation %}' }}", "{% raw %}{% generation %}{% endraw %}",
    "a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n  {% if yes %}\n  b\n  {% endif %}\nc", "a  {%- if yes -%}  b  {%- endif -%}  c", "a\n  {%+ if yes %}\nb{% endif %}", "a {% if yes +%}\nb{% endif %}", "  {{ n }}\n", "  {{- n -}}  \n x", "a\n\n", "a\r\nb\rc\n{{ n }}\r\n", "a\n{# c #}\nb", "  {# c #}\nb", "\n{{ n }}", "{{ 'a\r\nb' | length }}", "{{ n }}\r\n\r\n", "x{% set a = 1 %}\n\ny", "{%- set a = 1 %}\n  y", "{{ n\n}}", "a\t{% if yes %}\tb{% endif %}", "{% if yes %}a{% endif %}  \nb", "line\n\t {%- if yes %} x{% endif %}",
    "{{ raise_exception('no') }}", "{{ raise_exception() }}", "{{ nosuch() }}", "{{ s() }}", "{{ n.x() }}", "{% nosuch %}", "{{", "{% if %}", "{{ 1 + }}", "{{ 'a }}", "{% for x in l %}", "{% endif %}", "}} %} #}", "{ { x } }", "{{ '}}' }}", "{{ \"a\" 'b' }}", "{{ 'a' 'b' }}", "{{ 'a\\nb\\t\\'\\\"\\\\' }}", "{{ '\\x41\\u00e9\\101' }}", "{{ 'a\\qb' }}", "{{ '\\N{BULLET}' }}", "{{ [1, 2,] }}{{ {'a': 1,} }}{{ (1,) }}", "{{ {'a': {'b': [1]}}.a.b[0] }}", "{{ l[0:2] }}", "{{ l[1] + l[-1] }}", "{{ (s, n) | first }}", "{{ true }}{{ True }}{{ false }}{{ False }}{{ none }}{{ None }}", "{{ n is not defined }}", "{{ (n > 3) | string }}", "{{ not yes }}", "{{ 1 if yes else 2 if no else 3 }}", "{{ ('a' if yes) ~ 'b' }}", "{{ loop }}", "{{ self }}", "{{ cycler('a', 'b').next() }}", "{{ joiner(',')() }}", "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}", "{{ lipsum() }}", "{{ dict(a=1, b=2).items() | list }}", "{{ range(5) | sum }}", "{{ range(100001) | length }}", "{% set x = [] %}{% set x = x + [1] %}{% set x = x + [2] %}{{ x }}{{ x | length }}", "{% set _ = l.append(4) %}{{ l }}", "{% set m = dict(d, **{'z': 1}) %}{{ m.z }}", "{% block a %}x{% endblock %}", "{% autoescape true %}{{ '<' }}{% endautoescape %}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% trans %}x{% endtrans %}", "{% if s.startswith('H') and s.endswith('d') and 'o' in s %}y{% endif %}", "{{ s.split(',')[0].strip().lower() }}", "{% set parts = 'a</think>b'.split('</think>') %}{{ parts[-1].lstrip('\n') }}{{ parts | length }}", "{{ messages[-1]['content'] }}{{ messages[1:] | length }}", "{% for m in messages[::-1] %}{{ m.role }}{{ loop.index0 }}{% endfor %}", "{% for m in messages | reverse %}{{ m.role }}{% endfor %}", "{{ strftime_now('%Y') | length }}{{ strftime_now('%d %b %Y') | length }}{{ strftime_now('%Y-%m-%d') is string }}", "{{ messages[2].tool_calls[0].function.arguments | tojson }}", "{{ messages[2].tool_calls[0]['function']['arguments'] }}", "{% for k, v in messages[2].tool_calls[0].function.arguments | items %}{{ k }}={{ v }};{% endfor %}", "{{ bos_token }}{{ eos_token is defined }}", "{{ documents }}{{ add_generation_prompt }}", "{{ tools[0].function.parameters.properties.days['items'].type }}", "{% for k, p in tools[0].function.parameters.properties.items() %}{{ k }}:{{ p.type }}{{ p.get('enum', []) | join('|') }}{% if 'items' in p %}<{{ p['items']['type'] }}>{% endif %};{% endfor %}", "{% set content = messages[0].content ~ '' %}{{ content is string }}", "{% if not ns is defined %}{% set ns = namespace(found=false) %}{% endif %}{{ ns.found }}", "{{ messages | length - 1 }}", "{{ messages | map(attribute='role') | list | tojson }}", "{{ '%s' | format(s) ~ '%' }}{{ 50 }}%", "100% {{ n % 2 }} %} 5%", "{% if n % 2 == 0 %}even{% else %}odd{% endif %}{# 5 % 2 #}{% raw %}{{ 5 % 2 }}{% endraw %}", "{% set x = '%02d:%02d' % (n, 5) %}{{ x }}", "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 1) %}{{ raise_exception('alternate') }}{% endif %}{{ m.role }}{% endfor %}", "{%- for x in l -%}\n  {{ '%d' % x }}\n{%- endfor -%}", "{{ 'a%b' }}{{ \"%\" ~ '%%' }}", "{{ d['a' ~ '' if yes else 'b'] }}", "{{ '%s' % ('a' if no else 'b') }}", "{{ f('%s') if no else '%s%s' % (1, (2, 3)) }}", "{% set x = {'a': '%s' % 1, 'b': ['%s' % 2, 7 % 4]} %}{{ x }}", "{{ m('%s' % 1) }}{% macro m(a, b='%s' % 2) %}{{ a }}{{ b }}{% endmacro %}",
]

# Cases that this server refuses where the reference renders them, and why.
NOT_SUPPORTED = {
    "{{ l | random }}": "a rendering is a function of its input",
    "{{ lipsum() }}": "a rendering is a function of its input",
    "{{ s.translate({72: 'J'}) }}": "no template translates characters",
    "{{ s.maketrans('a', 'b') }}": "no template translates characters",
    "{{ s.encode('utf-8') }}": "there are no bytes in a chat",
    "{{ url | urlize }}": "there are no links in a chat",
    "{{ 'visit www.x.org' | urlize }}": "there are no links in a chat",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}": "macros take the arguments they name",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}": "defaults are evaluated before the arguments are known",
    "{% with a = 1, b = a %}{{ b }}{% endwith %}": "the values of `with` are evaluated inside of it",
    "{{ '\\N{BULLET}' }}": "there is no table of characters' names",
}

# Cases that render to another text, or where the reference raises an error; and why.
DIFFERS = {
    "{{ 3 in s }}": "types are not checked: false",
    "{{ 1 < 'a' }}": "types are not checked: values of different types have an order",
    "{{ none < 1 }}": "types are not checked: values of different types have an order",
    "{{ missing < 1 }}": "types are not checked: values of different types have an order",
    "{{ 'a' * 2.0 }}": "types are not checked: a float that is whole counts as an integer",
    "{{ '7' is odd }}": "types are not checked: false",
    "{% for x in none %}x{% endfor %}": "types are not checked: None has no items",
    "{% macro m() %}{% endmacro %}{{ m.name }}{{ m.arguments }}": "the names of a macro's arguments are a list, not a tuple",
    "{{ self }}": "there is no object for the template itself: undefined",
}
