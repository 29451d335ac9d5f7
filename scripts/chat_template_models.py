"""Whole chat templates like those of known model families, and the chats they are rendered with."""

TEMPLATES = {
    "chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "chatml_default_system": """{%- if messages[0]['role'] != 'system' -%}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['content'] is string %}
        {{- '<|im_start|>%s\\n%s<|im_end|>\\n' % (message['role'], message['content'] | trim) }}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' }}
        {%- for part in message['content'] if part.type == 'text' %}{{ part.text }}{% endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
""",
    "brackets": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "brackets_tools": """{%- if messages[0]["role"] == "system" %}{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {{- ', "id": "' + (tool_call.id or '') + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- set content = message.content.content if message.content is mapping and message.content.content is defined else message.content %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + '}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
""",
    "headers": """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Given the following functions, answer with a JSON call.\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "thinking": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
""",
    "turns": """{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}{%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}{%- else -%}{%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = "" -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}{%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\\n'}}{%- endif -%}
""",
    "plain_words": """{%- set roles = {'user': 'USER', 'assistant': 'ASSISTANT', 'system': ''} -%}
{%- for m in messages -%}
{%- set name = roles.get(m.role, m.role | upper) -%}
{{ name ~ (': ' if name else '') ~ m.content | default('', true) | string ~ ('</s>' if m.role == 'assistant' else ' ') }}
{%- endfor -%}
{{- 'ASSISTANT:' if add_generation_prompt }}""",
    "instructions": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '### Instruction:\\n' + message['content'].rstrip() + '\\n' }}
{% elif message['role'] == 'assistant' %}
{{ '### Response:\\n' ~ message['content'] ~ '\\n' -}}
{% else %}
{{ message['content'] | wordwrap(40) }}

{% endif %}
{% endfor %}
{% if add_generation_prompt %}
### Response:
{% endif %}
""",
    "typescript": """{%- macro type_of(spec, level=0) -%}
    {%- set pad = '  ' * (level + 1) -%}
    {%- if spec.type == "array" -%}
        {{- type_of(spec['items'], level) ~ '[]' -}}
    {%- elif spec.enum is defined -%}
        {{- spec.enum | map('tojson') | join(' | ') -}}
    {%- elif spec.type == "object" -%}
        {{- "{\\n" -}}
        {%- for name, property in (spec.properties or {}).items() -%}
            {%- if property.description -%}{{ pad ~ "// " ~ property.description ~ "\\n" }}{%- endif -%}
            {{- pad ~ name ~ ("?" if name not in (spec.required or []) else "") ~ ": " ~ type_of(property, level + 1) -}}
            {%- if property.default is defined -%}{{ ", // default: " ~ property.default }}{%- else -%},{%- endif -%}
            {{- "\\n" -}}
        {%- endfor -%}
        {{- '  ' * level ~ "}" -}}
    {%- elif spec.type in ["integer", "number"] -%}number
    {%- else -%}{{ spec.type or "any" }}
    {%- endif -%}
{%- endmacro -%}
{%- if tools -%}
namespace functions {
{%- for tool in tools %}

// {{ tool.function.description }}
type {{ tool.function.name }} = (_: {{ type_of(tool.function.parameters) }}) => any;
{%- endfor %}

}
{% endif -%}
{%- for m in messages -%}
    <|start|>{{ m.role }}<|message|>
    {%- if m.thinking is defined -%}<|analysis|>{{ m.thinking }}<|end|>{%- endif -%}
    {%- if m.content is string -%}{{ m.content }}{%- elif m.content -%}{%- for b in m.content -%}{{ b.text }}{%- endfor -%}{%- endif -%}
    {%- for c in m.tool_calls or [] -%}
        <|call|>{{ c.function.name }}({% for k, v in c.function.arguments | dictsort %}{{ k }}={{ v | tojson }}{{ ", " if not loop.last }}{% endfor %})
    {%- endfor -%}
    <|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
""",
    "training": """{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|>
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}

{%- else -%}
<|{{ message.role }}|>
{{ message.content }}

{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>
{% endif -%}""",
    "search": """{{ bos_token }}{% if documents %}{% set ns = namespace(i=0) %}<results>
{% for document in documents %}
Document: {{ loop.index0 }}
{% for key, value in document.items() %}
{{ key | title }}: {{ value }}
{% endfor %}
{% if not loop.last %}

{% endif %}
{% endfor %}
</results>
{% endif %}
{%- set last = messages | selectattr('role', 'eq', 'user') | map(attribute='content') | list | last -%}
Query: {{ last | string | replace('\\n', ' ') | truncate(40) }}
{%- for m in messages | rejectattr('role', 'in', ['system']) %}
{{ '%-10s|%3d|' % (m.role, loop.index) }}{{ (m.content or '') | string | wordcount }}
{%- endfor %}""",
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the \"weather\" of a <place> & its wind.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "A place, e.g. Zürich"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                    "at": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
                },
                "required": ["place"],
            },
        },
    }
]
USER = {"role": "user", "content": " How is the weather in Zürich?\n"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": [1, 2], "x": 0.00001}}}],
}

# Messages, template_kwargs, and add_generation_prompt.
CHATS = {
    "one": ([USER], {"eos_token": "</s>"}, True),
    "system": ([{"role": "system", "content": "Be brief, and say only what you know for certain about it."}, USER], {"eos_token": "</s>"}, True),
    "turns": ([USER, {"role": "assistant", "content": "Sunny.\n"}, {"role": "user", "content": "And\r\ntomorrow? 😀"}], {"eos_token": "</s>"}, True),
    "closed": ([USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSunny."}], {"eos_token": "</s>"}, False),
    "tools": ([USER, CALL, {"role": "tool", "name": "get_weather", "content": "{\"t\": 21.5}"}], {"eos_token": "</s>", "tools": TOOLS}, True),
    "tools_in_system": ([{"role": "system", "content": "Use tools."}, USER], {"eos_token": "</s>", "tools": TOOLS, "tools_in_user_message": False}, True),
    "blocks": ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this? "}]}], {"eos_token": "</s>"}, True),
    "thinking": ([USER, {"role": "assistant", "reasoning": "It is May.", "content": "Sunny."}], {"eos_token": "</s>", "enable_thinking": False}, True),
    "two_users": ([USER, USER], {"eos_token": "</s>"}, True),
    "documents": ([USER], {"eos_token": "</s>", "documents": [{"title": "a b", "text": "x"}, {"title": "c", "n": 1e16}]}, True),
}
