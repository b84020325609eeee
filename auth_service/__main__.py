"""`python -m auth_service`: the same command line as `auth-service`."""

from auth_service.cli.main import main

if __name__ == "__main__":
    main()
