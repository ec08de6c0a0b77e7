"""Quorker in web frameworks, one module each; every one needs its framework, and nothing else imports it. What must not live
here: anything that an app without that framework could need.
"""
