"""Importing this loads Django and all modules `tasks` of its apps: `App("shop", imports=["quorker.app.contrib.django_workers"])`
makes a worker know them. What must not live here: anything else.
"""

from __future__ import annotations

import django
from django.apps import apps
from django.utils.module_loading import autodiscover_modules

if not apps.ready:
    django.setup()
autodiscover_modules("tasks")
