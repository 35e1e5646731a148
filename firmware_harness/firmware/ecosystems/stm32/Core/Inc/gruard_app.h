/* What main.c of an STM32Cube project calls: once before its loop, and again and again in it. */
#ifndef GRUARD_APP_H
#define GRUARD_APP_H

void gruard_app_start(void);
void gruard_app_run(void);

#endif
