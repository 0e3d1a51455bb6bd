"""IAM's decision about a request: denied explicitly, else allowed explicitly, else denied.

Source: IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".
"""

import re


def matches(pattern, text):
    """`*` matches any characters and `?` one; in ARNs both match slashes."""
    parts = [{"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern]
    return re.fullmatch("".join(parts), text, re.S) is not None


OPERATORS = {
    "StringEquals": lambda wanted, text: wanted == text,
    "StringLike": matches,
    "ArnEquals": matches,
    "ArnLike": matches,
    "Bool": lambda wanted, text: str(wanted).lower() == str(text).lower(),
    "NumericLessThan": lambda wanted, text: float(text) < float(wanted),
}


def listed(value):
    return value if isinstance(value, list) else [value]


def holds(operator, key, values, context):
    """Whether one line of a condition is met; a missing key meets only operators ending in IfExists."""
    plain = operator.removesuffix("IfExists")
    if key not in context:
        return plain != operator
    return any(OPERATORS[plain](wanted, context[key]) for wanted in listed(values))


def applies(statement, action, resource, context):
    if not any(matches(pattern.lower(), action.lower()) for pattern in listed(statement["Action"])):
        return False
    if "Resource" in statement and not any(matches(pattern, resource) for pattern in listed(statement["Resource"])):
        return False
    return all(
        holds(operator, key, values, context)
        for operator, pairs in statement.get("Condition", {}).items()
        for key, values in pairs.items()
    )


def allowed(policy, action, resource="*", **context):
    """Whether a policy document allows a request; `__` in a context name stands for a colon."""
    facts = {name.replace("__", ":").replace("Tag_", "Tag/"): value for name, value in context.items()}
    effects = {s["Effect"] for s in policy["Statement"] if applies(s, action, resource, facts)}
    return effects == {"Allow"}
